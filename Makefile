# Two commands do all of their own set-up: `make demo` runs the main job end to end, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test slow lint docs wheel results clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

# Two processes of one thread each: tiny models gain nothing from threads, and wait for them.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=2 --dist=loadfile

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

# Needs the review data beside the project, and the better part of an hour on two cores.
results: wheel
	$(BIN)/python benchmarks/embedding_heads.py --models build/models
	$(BIN)/python benchmarks/base_install.py --model build/models/minilm-logreg
	$(BIN)/python benchmarks/true_size_cpu.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[export,openvino,qlora]' --group dev
	touch $@

clean:
	rm -rf $(VENV) build demo-output
