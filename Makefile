# Each command does all of its own set-up: `make demo` predicts with the built-in model, `make train` goes from a CSV to an export of
# one's own, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := export,openvino,qlora,experiments,scale,files,gguf,ray
# What `pip install reviewguard` gives: no torch.
BASE := $(VENV)-base
# The oldest versions that pyproject.toml takes.
FLOOR := $(VENV)-floor
# Node comes from PyPI; with it, the libraries that load exports elsewhere, and a browser.
PORTABILITY := tests/portability
NODE_MODULES := $(PORTABILITY)/node_modules/.installed

.PHONY: demo train test floor slow lint docs wheel results page clean

demo: $(BASE)/.installed
	$(BASE)/bin/python examples/predict.py

train: $(INSTALLED)
	$(BIN)/python examples/train.py

# Two processes of one thread each: tiny models gain nothing from threads, and wait for them.
test: $(INSTALLED) $(NODE_MODULES)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=2 --dist=loadfile

# Old versions warn of newer ones beside them, and that is no error of ours; one test would have it be one.
floor: $(FLOOR)/.installed
	OMP_NUM_THREADS=1 $(FLOOR)/bin/pytest --numprocesses=2 --dist=loadfile --override-ini=filterwarnings=default --disable-warnings \
	    --deselect=tests/inference/engines/test_without_extras.py::test_the_command_line_predicts_without_the_extras \
	    tests/inference/engines tests/training/backends/test_contract.py tests/export/test_onnx.py tests/test_classifier.py tests/test_builtin.py \
	    tests/serve/test_application.py tests/serve/test_ray.py

slow: $(INSTALLED)
	$(BIN)/pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

wheel: $(INSTALLED)
	$(BIN)/python -m build --outdir build/dist
	$(BIN)/twine check --strict build/dist/*

# Needs the review data beside the project, the packages that benchmarks/weights.py names, and days on two cores. Run by themselves: benchmarks/gpu_qlora.py, which needs a GPU, and
# benchmarks/cpu_inference.py, which needs the libraries that it compares with.
results: $(INSTALLED)
	$(BIN)/python benchmarks/embedding_heads.py --models build/models
	$(BIN)/python benchmarks/weights.py e5
	$(BIN)/python benchmarks/generalization.py
	$(BIN)/python benchmarks/train_builtin.py
	$(MAKE) wheel
	$(BIN)/python benchmarks/base_install.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/ab_tests.py
	$(BIN)/python benchmarks/out_of_distribution.py
	$(BIN)/python benchmarks/true_size_cpu.py
	$(BIN)/python benchmarks/fine_tuning.py
	$(BIN)/python benchmarks/evidence.py
	$(BIN)/python benchmarks/decisions.py

# The libraries of examples/browser.
page: $(NODE_MODULES)
	$(BIN)/python examples/browser/vendor.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]' --group dev
	touch $@

$(BASE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(BASE)
	$(BASE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(FLOOR)/.installed: pyproject.toml tests/floor/all.txt
	$(PYTHON) -m venv --clear $(FLOOR)
	$(FLOOR)/bin/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(FLOOR)/bin/python -m pip install --quiet --constraint tests/floor/all.txt --editable '.[$(EXTRAS)]' --group test
	touch $@

# Packages run no scripts when they are installed: none here needs to. The browser is unpacked once, before tests could race for it.
$(NODE_MODULES): $(PORTABILITY)/package-lock.json $(PORTABILITY)/chromium.mjs | $(INSTALLED)
	$(BIN)/npm --prefix $(PORTABILITY) ci --ignore-scripts --no-audit --no-fund
	if [ "$$(uname -sm)" = "Linux x86_64" ]; then $(BIN)/node $(PORTABILITY)/chromium.mjs; fi
	touch $@

clean:
	rm -rf $(VENV) $(BASE) $(FLOOR) build demo-output $(PORTABILITY)/node_modules examples/browser/vendor
