"use strict";
// Draws the charts of the page, and lets the reader hide models and choose what a chart shows.
const charts = JSON.parse(document.getElementById("charts").textContent);
const toggles = [...document.querySelectorAll("input[data-model]")];
const views = [];

const shown = () => toggles.filter((box) => box.checked).map((box) => box.dataset.model);

function hideModels() {
  const models = shown();
  for (const { view, chart } of views) if (chart.models) view.signal("shown", models.filter((m) => chart.models.includes(m))).runAsync();
  for (const strip of document.querySelectorAll("[data-of]")) strip.hidden = !models.includes(strip.dataset.of);
}

async function draw(chart) {
  const place = document.getElementById(chart.name);
  const options = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: chart.name };
  const { view } = await vegaEmbed(place.querySelector(".chart"), chart.spec, options);
  for (const select of place.querySelectorAll("select")) {
    view.signal(select.name, select.value);
    select.addEventListener("change", () => view.signal(select.name, select.value).runAsync());
  }
  views.push({ view, chart });
  return view.runAsync();
}

for (const box of toggles) box.addEventListener("change", hideModels);
Promise.all(charts.map(draw)).then(
  () => { document.documentElement.dataset.drawn = views.length; hideModels(); },
  (error) => { document.documentElement.dataset.failed = error; throw error; },
);
