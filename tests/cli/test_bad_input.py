"""Wrong data, budgets, options, places and protocols: exit status 2, one message, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustode.evaluation.rundir import read_run
from tests.cli.command import refused, robustode, works

EVAL = "eval --model s.safetensors --attacks sensitivity-l2"
GENERATE = "generate --model s.safetensors --limit 20"


def arrays(name: str) -> None:
    """Write the data file `name`, with the fault that it is named after."""
    x = np.random.default_rng(0).random((30, 1, 8, 8), dtype=np.float32)
    y = np.arange(30) % 10
    holed = x.copy()
    holed[3, 0, 0, 0] = np.nan
    changed = {
        "labels.npz": {"x": x, "y": y + 5},
        "negative.npz": {"x": x, "y": y - 1},
        "halves.npz": {"x": x, "y": y + 0.5},
        "outside.npz": {"x": 3 * x, "y": y},
        "nan.npz": {"x": holed, "y": y},
        "empty.npz": {"x": x[:0], "y": y[:0]},
        "shape.npz": {"x": x[:, :, :4], "y": y},
        "only-x.npz": {"x": x},
        "objects.npz": {"x": np.array([{}], dtype=object), "y": y[:1]},
    }
    if name in changed:
        np.savez(name, **changed[name])
    elif name == "junk.npz":
        Path(name).write_bytes(b"junk")
    elif name == "table.csv":
        Path(name).write_text("1,2\n")
    elif name in ("vacant", "folder:vacant"):
        Path("vacant").mkdir()


@pytest.mark.parametrize(
    ("data", "phrases"),
    [
        ("digit", ["unknown data set", "Did you mean 'digits'?"]),
        ("moons", ["inputs of shape (1, 8, 8)", "got (2,)", "digits"]),
        ("mnist", ["--data-root", "ROBUSTODE_DATA", "robustode data fetch mnist"]),
        ("mnist --data-root nowhere", ["nowhere/MNIST/raw", "no such file"]),
        ("absent.npz", ["no such file"]),
        ("labels.npz", ["expected classes 0 to 9, as the model has, got labels up to 14"]),
        ("negative.npz", ["labels y", "got -1 to 8"]),
        ("halves.npz", ["expected whole numbers", "float64"]),
        ("outside.npz", ["inside the bounds [0, 1]", "samples outside", "--bounds"]),
        ("nan.npz", ["expected finite numbers", "first in sample 3"]),
        ("empty.npz", ["at least one sample", "(0, 1, 8, 8)"]),
        ("shape.npz", ["inputs of shape (1, 8, 8)", "got (1, 4, 8)"]),
        ("only-x.npz", ["expected arrays x and y, got x"]),
        ("objects.npz", ["numeric arrays"]),
        ("junk.npz", ["numeric arrays"]),
        ("table.csv", ["an .npz", ".csv"]),
        ("vacant", ["robustode generate", "folder:vacant"]),
        ("folder:vacant", ["at least two subfolders, one per class"]),
        ("folder:absent", ["no such folder"]),
        ("python:code_of_user.py:unpaired", ["expected a pair (x, y), got Tensor"]),
        ("python:code_of_user.py:broken", ["ValueError", "no luck"]),
    ],
)
def test_data(folder, data, phrases):
    arrays(data.split()[0])
    message = refused(f"{EVAL} --data {data}")
    for phrase in phrases:
        assert phrase in message


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ("--eps 0.5,0.5", ["eps: expected every radius once, got 0.5 twice"]),
        ("--eps 9", ["expected radii up to 8, the greatest distance in the box [0, 1]", "got 9"]),
        ("--transfer l.safetensors", ["transfer: expected none", 'say audit "full"']),
        ("--eps 0", ["positive, finite radius", "got '0'"]),
        ("--eps -1", ["positive, finite radius", "got '-1'"]),
        ("--eps nan", ["positive, finite radius", "got 'nan'"]),
        ("--eps four", ["positive number or fraction", "got 'four'", "8/255"]),
        ("--eps 1/0", ["positive number or fraction"]),
        ("--eps 0.1,,0.2", ["positive number or fraction", "got ''"]),
        ("--eps ''", ["--eps: expected a value, got an empty text"]),
        ("--eps= --limit 20", ["--eps: expected a value, got an empty text"]),
        ("--eps 0.1 --attacks standard", ["several norms (l2, linf)", "--eps linf=4/255,8/255 --eps l2=0.5"]),
        ("--eps linf=0.1", ["a norm of this run (l2), got 'linf'"]),
        ("--eps l3=0.1", ["unknown norm", "Did you mean 'l2'?"]),
        ("--eps 0.1 --attacks none", ["eps: expected none, as there are no attacks"]),
        ("--limit 0", ["limit: expected a positive whole number, or first:N, got '0'"]),
        ("--limit -1", ["got '-1'"]),
        ("--limit abc", ["got 'abc'"]),
        ("--limit first:0", ["got 'first:0'"]),
        ("--limit 361", ["at most 360", "got 361"]),
        ("--limit first:999", ["at most 360", "got 999"]),
        ("--attacks standrd", ["unknown suite or attack", "Did you mean 'standard'?"]),
        ("--attacks pgd-lnf", ["Did you mean 'pgd-linf'?"]),
        ("--attacks absent.toml", ["unknown suite or attack"]),
        ("--also sensitivity-l3", ["Did you mean 'sensitivity-l2'?"]),
        ("--attacks sensitivity", ["expected a norm, got none", "--norm"]),
        ("--attacks foolbox:DDNAttac --norm l2", ["unknown foolbox attack", "Did you mean 'DDNAttack'?"]),
        ("--attacks foolbox:DDNAttack --norm l2 --param step=3", ["unknown parameter", "Did you mean 'steps'?"]),
        ("--attacks foolbox:DDNAttack --norm l2 --param steps", ["--param: expected NAME=VALUE, got 'steps'"]),
        ("--attacks foolbox:DDNAttack --norm l2 --param steps=many", ["expected an integer, got 'many'"]),
        ("--attacks ddn-l2 --param steps=3", ["expected none: the cards fix them, got steps"]),
        ("--attacks python:code_of_user.py:absent --norm l2", ["no 'absent' there"]),
        ("--norm l1", ["expected a norm among l2"]),
        ("--device gpu", ["unknown device", "Did you mean 'cpu'?"]),
        ("--split tset", ["unknown split", "Did you mean 'test'?"]),
        ("--bounds 1,0", ["--bounds: expected LO,HI with LO < HI"]),
        ("--bounds 0", ["--bounds: expected 2 numbers"]),
        ("--bounds a,b", ["--bounds: expected numbers"]),
        ("--input-shape 1,0", ["--input-shape: expected positive integers"]),
        ("--mean 0.5", ["expected --mean and --std, got --mean alone"]),
        ("--std 0.5", ["got --std alone"]),
        ("--resume --force", ["expected --resume or --force, got both"]),
        ("--data ''", ["--data: expected a value"]),
        ("--shard 0", ["--shard: expected a whole number ≥ 1 of samples in a unit, or i/N with 0 ≤ i < N", "got 0"]),
        ("--shard abc", ["--shard: expected a whole number ≥ 1 of samples", "got abc"]),
        ("--shard 3/2", ["--shard: expected i/N with 0 ≤ i < N, such as 0/2, got '3/2'"]),
        ("--eot 0", ["--eot: expected a whole number ≥ 1, got 0"]),
        ("--classes 1", ["--classes: expected a whole number ≥ 2, got 1"]),
        ("--seed -1", ["--seed: expected a whole number ≥ 0, got -1"]),
        ("--out s.safetensors", ["a folder that can be written, got the file 's.safetensors'"]),
        ("--out s.safetensors --force", ["a folder that can be written"]),
        ("--out s.safetensors --resume", ["a folder that can be written"]),
        ("--out s.safetensors/new/x", ["a folder that can be written", "s.safetensors'"]),
        ("--out .", ["expected a directory that does not exist", "--resume", "--force"]),
        ("--out . --force", ["expected an earlier run, got something else"]),
    ],
)
def test_options(folder, options, phrases):
    message = refused(f"{EVAL} {options}")
    for phrase in phrases:
        assert phrase in message


@pytest.mark.parametrize(
    ("line", "phrases"),
    [
        ("eval", ["Missing option '--model'"]),
        ("eval --modle s.safetensors", ["No such option: --modle", "--model"]),
        ("evl", ["No such command 'evl'", "Did you mean 'eval'?"]),
        ("train snode --data digits", ["Missing option '--out'"]),
    ],
)
def test_usage(folder, line, phrases):
    done = robustode(line)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    for phrase in phrases:
        assert phrase in done.err


@pytest.mark.parametrize(
    ("line", "phrases"),
    [
        ("train snod --data digits --out a.safetensors", ["unknown architecture", "Did you mean 'snode'?"]),
        ("train snode --data digit --out a.safetensors", ["unknown data set", "Did you mean 'digits'?"]),
        ("train snode --data digits --out a.pt", ["ends in .safetensors", "a.safetensors"]),
        ("train snode --data digits --out s.safetensors", ["expected a new file", "--force"]),
        ("train snode --data digits --out s.safetensors/a.safetensors", ["a folder that can be written"]),
        ("train snode --data digits --out a.safetensors --set epoch=1", ["Did you mean 'epochs'?"]),
        ("train snode --data digits --out a.safetensors --set epochs=0", ["whole number ≥ 1, got 0"]),
        ("train snode --data digits --out a.safetensors --set epochs=x", ["whole number ≥ 1, got 'x'"]),
        ("train snode --data digits --out a.safetensors --set epochs", ["--set: expected NAME=VALUE"]),
        ("train snode --data digits --out a.safetensors --limit 0", ["limit: expected a positive whole number"]),
        (f"{GENERATE} --attack standard --out g", ["--attack: expected one card, got"]),
        (f"{GENERATE} --attack none --out g", ["--attack: expected one card, got none"]),
        (f"{GENERATE} --attack fgm-l2 --out g", ["expected exactly one value, got none", "--eps"]),
        (f"{GENERATE} --attack fgm-l2 --eps 1,2 --out g", ["expected exactly one value, got 1, 2"]),
        (f"{GENERATE} --attack sensitivity-l2 --format csv --out g", ["parquet, png, safetensors, got 'csv'"]),
        (f"{GENERATE} --attack sensitivity-l2 --out s.safetensors", ["a folder that can be written"]),
        (f"{GENERATE} --attack sensitivity-l2 --out .", ["expected an empty or new one"]),
        (f"{GENERATE} --attack sensitivity-l2 --out g --resume --force", ["got both"]),
        ("report absent", ["no run directory 'absent'"]),
        ("report .", ["'.' is not a run directory"]),
        ("verify . --model s.safetensors", ["'.' is not a run directory"]),
        ("uncertainty --model s.safetensors --sigma -1", ["expected finite numbers ≥ 0, got '-1'"]),
        ("uncertainty --model s.safetensors --sigma inf", ["expected finite numbers ≥ 0, got 'inf'"]),
        ("uncertainty --model s.safetensors --sigma x", ["expected finite numbers ≥ 0, got 'x'"]),
        (
            "uncertainty --model s.safetensors --weights int4",
            ["expected none, int8 or a standard deviation"],
        ),
        ("uncertainty --model s.safetensors --methods linaer", ["got 'linaer'"]),
        ("uncertainty --model zoo:resnet-digits --methods gaussian --sigma 0.1 --limit 20 --drawn 0", ["gaussian"]),
        (
            "uncertainty --model s.safetensors --out l.safetensors",
            ["expected a folder that can be"],
        ),
        ("uncertainty --model s.safetensors --draws 0", ["--draws: expected a whole number ≥ 2, got 0"]),
        ("uncertainty --model s.safetensors --out .", ["expected a directory that does not exist"]),
        ("run quickstat", ["unknown protocol", "Did you mean 'quickstart'?"]),
        ("run quickstart --limit 0", ["limit: expected a positive whole number"]),
        ("run quickstart --resume --force", ["got both"]),
        ("run compare", ["models of the protocol: expected at least one, got none", "--model"]),
        ("run quickstart --audit none --strict", ["--strict: expected an audit"]),
        ("run quickstart --audit fll", ["audit: expected one of cheap, full, none", "Did you mean 'full'?"]),
        ("run paper --model s.safetensors", ["--model: expected a protocol", "got study 'paper'"]),
        ("run paper --no-store", ["--no-store: expected a protocol"]),
        ("list model", ["unknown list", "Did you mean 'models'?"]),
        ("data fetch mnst --data-root d", ["unknown data set to fetch", "Did you mean 'mnist'?"]),
        ("data fetch mnist", ["--data-root DIR, or set ROBUSTODE_DATA"]),
        ("data fetch digits --data-root d", ["it is part of the package"]),
        ("data fetch mnist --data-root d --url ftp", ["http:// or https://"]),
    ],
)
def test_other_commands(folder, line, phrases):
    if "--url" in line:
        Path("d/MNIST/raw").mkdir(parents=True)
    message = refused(line)
    for phrase in phrases:
        assert phrase in message


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (
            'models = ["s.safetensors"]\nattack = "none"',
            ["p.toml, line 2: unknown key", "Did you mean 'attacks'?"],
        ),
        ('models = ["s.safetensors"', ["expected valid TOML", "Unclosed array"]),
        ('attacks = "standard"', ["models of the protocol: expected at least one, got none", "--model"]),
        ("models = []", ["expected at least one", "--model"]),
        ('models = ["s.safetensors"]\nlimit = 0', ["p.toml, line 2: limit: expected a positive whole number"]),
        ('models = ["s.safetensors"]\nshard = 0', ["p.toml, line 2: shard: expected a number ≥ 1, got 0"]),
        (
            'models = ["s.safetensors"]\nbudgets = { linf = [0.1, -1] }',
            ["line 2: budgets.linf.1", "'-1'"],
        ),
        ('models = ["s.safetensors"]\nbudgets = { l7 = [0.1] }', ["p.toml, line 2: budgets.l7", "Did you mean 'l2'"]),
        ('\nmodels = [\n"s.safetensors",\n"absent.safetensors"]', ["p.toml, line 4: model", "no such file"]),
        ('\n[[models]]\nmodel = "s.safetensors"\nlabl = "x"', ["p.toml, line 4: unknown key of models", "'label'"]),
        ('models = ["s.safetensors"]\ndata = "digit"', ["p.toml, line 2: unknown data set", "Did you mean 'digits'?"]),
        ('models = ["s.safetensors"]\nsplit = "tset"', ["p.toml, line 2: unknown split", "Did you mean 'test'?"]),
        ('models = ["s.safetensors"]\n\nlimit = 999', ["p.toml, line 3: limit for data", "at most 360"]),
        ('models = ["s.safetensors"]\nattacks = "standrd"', ["p.toml, line 2: unknown suite or attack"]),
        ('models = ["s.safetensors"]\nalso = ["fgm-l2",\n"pgd-lnf"]', ["p.toml, line 3: unknown suite or attack"]),
        ('models = ["s.safetensors"]\nattacks = "fgm-l2"\nparams = { a = 1 }', ["p.toml, line 3: parameters"]),
        (
            'models = ["s.safetensors"]\nattacks = "fgm-l2"\n[budgets]\nl2 = 1\nlinf = 0.1',
            ["p.toml, line 5: budgets: expected norms of the attacks (l2), got 'linf'"],
        ),
        (
            'models = ["s.safetensors"]\n[budgets]\nlinf = [8]',
            ["p.toml, line 3: budgets for norm linf: expected radii up to 1", "got 8", "8/255"],
        ),
        (
            'models = ["s.safetensors"]\n[budgets]\nl2 = [1, 2, 1]',
            ["line 3: budgets.l2: expected every radius"],
        ),
        ('models = ["s.safetensors"]\naudit = "deep"', ["p.toml, line 2: audit: expected one of cheap, full, none"]),
        ('models = ["s.safetensors"]\ntransfer = ["a"]', ["p.toml, line 2: transfer", 'say audit "full"']),
        (
            'models = ["s.safetensors"]\naudit = "full"\ntransfer = ["absent.safetensors"]',
            ["p.toml, line 3: ", "no such file"],
        ),
        ('models = ["s.safetensors"]\nbase = "x"', ["p.toml, line 2: unknown key of protocol", "got 'base'"]),
    ],
)
def test_protocol_files(folder, text, phrases):
    Path("p.toml").write_text(text)
    message = refused("run p.toml")
    for phrase in phrases:
        assert phrase in message


def test_all_mistakes_of_a_protocol_at_once(folder):
    Path("p.toml").write_text('atacks = "x"\nmodels = ["a"]\n\nseed = -1\n[budgets]\nlinf = [\n0.1,\n"x"]\n')
    done = robustode("run p.toml")
    assert (done.code, done.out) == (2, "")
    first, *rows = done.err.splitlines()
    assert first == "error: 3 mistakes"
    assert [row.strip().partition(": ")[0] for row in rows] == [f"p.toml, line {n}" for n in (1, 4, 8)]
    assert rows[0].endswith("got 'atacks'. Did you mean 'attacks'?")
    assert rows[1].endswith("seed: expected a number ≥ 0, got -1")
    assert "budgets.linf.1: expected a positive number or fraction, got 'x'" in rows[2]


def test_options_take_the_place_of_what_a_protocol_says(folder):
    Path("p.toml").write_text('models = ["absent"]\ndata = "none"\nattacks = "none"\nlimit = 999\naudit = "full"\n')
    document = works("run p.toml --model s.safetensors --data digits --limit 40 --audit none --seed 3 --json").json
    assert document["out"] == "runs/p-s-digits"
    assert document["audit"] is None
    protocol = read_run(Path("runs/p-s-digits")).meta["protocol"]
    assert [protocol[key] for key in ("data", "limit", "audit", "seed")] == ["digits", 40, "none", 3]
    message = refused("run p.toml --model s.safetensors --data digits --limit 998")
    assert message.startswith("limit for data 'digits'")  # the line of the file is not to blame


def test_directories_that_exist(folder):
    line = f"{EVAL} --limit 20 --out r --no-store"
    works(line)
    message = robustode(line)
    assert message.code == 2
    assert "--resume" in message.err
    assert "--force" in message.err
    works(f"{line} --force")
    other = robustode(f"{line} --resume --seed 1")
    assert other.code == 2
    assert "got seed: 0 then, 1 now" in other.err
    assert "without --no-store" in refused("verify r --model s.safetensors")
    assert "expected an earlier report" in refused("report r --out r --force")


def test_runs_that_are_not_comparable(folder):
    works("eval --model s.safetensors --attacks sensitivity-l2 --limit 20 --out a")
    works("eval --model l.safetensors --attacks sensitivity-l2 --limit 30 --out b")
    works("eval --model l.safetensors --attacks sensitivity-l2 --limit 20 --eps 0.5 --out c")
    assert "runs 'a' and 'b' are not comparable: data" in refused("report a b --out r")
    assert "runs 'a' and 'c' are not comparable: budgets" in refused("report a c --out r")
    assert "expected one of s (" in refused("verify a --model l.safetensors")
    Path("a/tables/robust_accuracy_l2.csv").write_text("changed")
    assert "was changed by hand: tables/robust_accuracy_l2.csv has other bytes" in refused("report a --out r")
