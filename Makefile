# Two commands do all the set-up on a fresh machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The default tests run in as many processes as there are cores, each with one thread.
JOBS ?= auto
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test lint types docs zoo mnist14 cifar10 paper bench clean

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1
	touch $@

demo: $(BIN)/.installed
	$(BIN)/robustode run quickstart --out runs/demo --force

test: $(BIN)/.installed
	$(THREADS) $(BIN)/python -m pytest -n $(JOBS) -m "not gpu" --durations=20 --durations-min=10

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed
	$(BIN)/pyright

# The documentation as a site that needs no network, in an environment of its own: its requests is too new for torchattacks.
.venv-docs/.installed: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement docs/requirements.txt
	touch $@

docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict
	@echo "open site/index.html (search needs a server: python -m http.server --directory site)"

# The bundled checkpoints, by the commands in their headers; with the image sets at hand also those of the first seed of
# the study of the paper, which are not shipped (runs/paper-0).
ZOO := robustode/models/zoo
zoo: $(BIN)/.installed
	$(BIN)/robustode train snode --data digits --out $(ZOO)/snode-digits.safetensors --force
	$(BIN)/robustode train layered --data digits --out $(ZOO)/layered-digits.safetensors --force
	$(BIN)/robustode train resnet --data digits --out $(ZOO)/resnet-digits.safetensors --force
	test -z "$$ROBUSTODE_DATA" || $(BIN)/robustode run paper --seed 0 --out runs/paper-0 --resume

# Runs a protocol unless its run is finished, and copies what is published of it to reports/.
define publish
test -f runs/$(1)/report.html || $(BIN)/robustode run $(1) --out runs/$(1) --resume
$(BIN)/robustode report runs/$(1) --out runs/$(1)-comparison --force > /dev/null
rm -rf reports/$(1)/tables reports/$(1)/figures
mkdir -p reports/$(1)/tables reports/$(1)/figures
cp runs/$(1)/run.json reports/$(1)/
cp runs/$(1)/tables/* runs/$(1)-comparison/tables/paired_* reports/$(1)/tables/
cp runs/$(1)/figures/*.svg runs/$(1)/figures/robust_accuracy_*.png reports/$(1)/figures/
endef

# The published table of reports/mnist14 (needs ROBUSTODE_DATA; half an hour on two cores).
mnist14: $(BIN)/.installed
	mkdir -p runs/mnist14-models
	for arch in snode layered resnet; do \
	  test -f runs/mnist14-models/$$arch-mnist14.safetensors || \
	  $(BIN)/robustode train $$arch --data mnist14 --out runs/mnist14-models/$$arch-mnist14.safetensors || exit 1; \
	done
	$(call publish,mnist14)

# The published table of reports/cifar10, by the recipes for two cores (needs ROBUSTODE_DATA; an hour on two cores).
cifar10: $(BIN)/.installed
	mkdir -p runs/cifar10-models
	for way in :best -adv:adversarial; do for arch in conv-snode resnet; do \
	  out=runs/cifar10-models/cifar-$${arch#conv-}$${way%%:*}.safetensors; \
	  test -f $$out || $(BIN)/robustode train $$arch --data cifar10 --recipe $${way#*:} --out $$out || exit 1; \
	done; done
	$(call publish,cifar10)

# The study in reports/paper and its two rows on 28x28 (needs ROBUSTODE_DATA; 75 minutes on two cores, by --shard).
paper: $(BIN)/.installed
	OMP_NUM_THREADS=1 $(BIN)/robustode run paper --out runs/paper --resume --shard 0/2 & first=$$!; sleep 30; \
	OMP_NUM_THREADS=1 $(BIN)/robustode run paper --out runs/paper --resume --shard 1/2; second=$$?; \
	wait $$first && test $$second -eq 0
	$(BIN)/robustode run paper --out runs/paper --resume
	mkdir -p runs/paper-28-models
	for arch in conv-snode resnet; do \
	  test -f runs/paper-28-models/$$arch-mnist.safetensors || \
	  $(BIN)/robustode train $$arch --data mnist --out runs/paper-28-models/$$arch-mnist.safetensors || exit 1; \
	done
	test -f runs/paper-28/report.html || $(BIN)/robustode run paper-28 --out runs/paper-28 --resume
	rm -rf reports/paper/tables reports/paper/figures reports/paper/tables-28
	mkdir -p reports/paper
	cp -r runs/paper/tables runs/paper/figures runs/paper/units.csv runs/paper/distances.parquet runs/paper/study.json \
	  reports/paper/
	cp -r runs/paper-28/tables reports/paper/tables-28

# The peers of the attack benchmarks; adv-lib without its dependencies, torchvision and visdom, which are not used.
$(BIN)/.peers: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "numba>=0.60" pyautoattack==0.2.0 tqdm
	$(BIN)/python -m pip install --quiet --no-deps adv-lib==0.2.8
	touch $@

# The attack benchmarks on bundled models take minutes; benchmarks/README.md has the commands for trained ones.
bench: $(BIN)/.peers
	$(BIN)/python benchmarks/sweep.py
	$(THREADS) $(BIN)/python benchmarks/minimal_norm.py --images 100 --dev 40 --minutes 5
	$(THREADS) $(BIN)/python benchmarks/robust_accuracy.py --images 60
	$(BIN)/python benchmarks/ncg_epoch.py

clean:
	rm -rf runs dist build site .pytest_cache .ruff_cache
