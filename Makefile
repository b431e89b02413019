# Needs Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test slow docs-test slow-and-docs coverage browser lint docs bench clean

demo: $(STAMP)
	$(BIN)/shiftlens demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --timeout=1200

docs-test: $(STAMP)
	$(BIN)/python -m pytest -m docs -n 2 --dist worksteal

slow-and-docs: $(STAMP)
	$(BIN)/python -m pytest -m 'slow or docs' -n 2 --dist worksteal --timeout=1200

coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

browser: $(STAMP)
	$(BIN)/python -m pytest tests/browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html; to search it: $(BIN)/python -m http.server --directory site --bind 127.0.0.1"

bench: $(STAMP)
	$(BIN)/python benchmarks/sweep.py --out docs/benchmarks/sweep.json

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shiftlens needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[data,models,test,docs,dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo-out site
