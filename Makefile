# Each target makes its own .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without a GPU the CPU build of torch is taken first: a plain "torch" pulls gigabytes of CUDA.
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo torch || echo torch==2.13.0)
# Of the Flowers that pyproject.toml allows, the newest; "make test-lower" takes the oldest.
FLOWER ?= flwr[simulation]==1.42.0
export OMP_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED = 0
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: wheel sim test fast fast-1 fast-2 test-processes test-computing test-lower test-flower lint docs data data-icons bench certs golden clean

sim: $(VENV)/installed
	$(BIN)/python run_sim.py preset=quickstart

# Side by side: tests wait for the processes that they start, and two cores are there.
test: $(VENV)/installed lint
	$(MAKE) --jobs 2 test-processes test-computing
	for file in tests/golden/*.json; do $(BIN)/python -m tests.golden $$file || exit 1; done

# The unit tests alone, in two halves of about the same length.
UNITS_1 := aggregation clients cohort losses machine models rounds
UNITS_2 := data federation report settings strategies test_layers.py docs/test_contributing.py \
  docs/test_method_pages.py
fast: $(VENV)/installed lint
	$(MAKE) --jobs 2 fast-1 fast-2

fast-1 fast-2: fast-%:
	$(BIN)/python -m pytest -m "not slow" $(UNITS_$*:%=tests/%)

test-processes:
	$(BIN)/python -m pytest -m processes

test-computing:
	$(BIN)/python -m pytest -m "not processes"

# A device with the oldest libraries that are supported. With TORCH_LOWER=torch==2.13.0 it is small.
LOWER := .venv-lower
TORCH_LOWER ?= torch==2.4.1
test-lower:
	test -x $(LOWER)/bin/python || $(PYTHON) -m venv $(LOWER)
	$(LOWER)/bin/python -m pip install -q "$(TORCH_LOWER)" "numpy==1.26.4" "safetensors==0.4.0" "threadpoolctl==3.1.0" "flwr==1.41.0"
	CUDA_VISIBLE_DEVICES= $(LOWER)/bin/python tests/deploy/device_only.py

# The oldest Flower before the packages of .venv: what touches Flower, and a fleet with both versions.
OLDER := .venv-flower
PURELIB := -c "import sysconfig; print(sysconfig.get_path('purelib'))"
test-flower: $(VENV)/installed
	test -x $(OLDER)/bin/python || $(BIN)/python -m venv $(OLDER)
	$(BIN)/python $(PURELIB) > "$$($(OLDER)/bin/python $(PURELIB))/zz_base.pth"
	$(OLDER)/bin/python -m pip install -q --ignore-installed --no-deps "flwr==1.41.0"
	FEDLABELS_OTHER_FLOWER="$(BIN)" PYTHONPATH="$(CURDIR)" $(OLDER)/bin/python -m pytest \
	  tests/rounds tests/strategies/test_stock.py tests/strategies/test_stock_values.py \
	  tests/simulation/test_grid.py tests/worker/test_mods.py tests/deploy/test_versions.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site: open its index.html; docs/settings.md is written anew from the code
docs: $(VENV)/installed
	$(BIN)/python -c "import material" 2>/dev/null || $(BIN)/python -m pip install -q -e ".[docs]"
	$(BIN)/python -m fedlabels.settings.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Fashion-MNIST, from Debian: 31 MB below /usr/share/datasets
data:
	@test -d /usr/share/datasets/fashion-mnist || apt-get install -y dataset-fashion-mnist \
	  || echo "no apt here: put the four idx.gz files into \$$FEDLABELS_DATA/FashionMNIST/raw"

# Icons of five desktop themes of Debian (66 MB), collected into one file of 6 MB
ICON_THEMES := oxygen tango gnome faenza elementary-xfce
data-icons: $(VENV)/installed
	! command -v apt-get >/dev/null \
	  || apt-get install -y --no-install-recommends $(ICON_THEMES:=-icon-theme)
	$(BIN)/python -m fedlabels.data.icons "$${FEDLABELS_DATA:-$$HOME/.cache/fedlabels}/icons"

# sdist and wheel, in dist/: pip install "dist/fedlabels-VERSION-py3-none-any.whl[sim]"
wheel: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

# Speed; the accuracies are benchmarks/label_scarcity.py headroom short wide long
bench: $(VENV)/installed
	$(BIN)/python benchmarks/simulators.py

# Keys of a fleet: make certs DEVICES=3 SERVER="fl.example.org 10.0.0.1"; what exists is kept
CERTS ?= certs
DEVICES ?= 2
SERVER ?=
certs: $(VENV)/installed
	$(BIN)/python -m fedlabels.deploy keys --out $(CERTS) --devices $(DEVICES) \
	  $(addprefix --host ,$(SERVER))

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q "$(FLOWER)" -e ".[sim,report,dev]"
	@touch $@
