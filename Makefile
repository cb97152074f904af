# make demo | test | test-all | test-lowest | lab | figures | bench | book | slides | assignments | install   (VENV=folder: another environment)
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ltml-installed

.PHONY: demo test test-slow test-all test-lowest lint lab figures bench book slides assignments install clean

demo: $(READY)
	$(BIN)/ltml demo --out runs/demo

# Lint and the fast tests: under two minutes on two idle cores, one thread each.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# The rest: the notebooks, whole trainings, kills, load, pages in a browser.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-all: test test-slow

# The fast tests with the lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest:
	test -x $(VENV)-lowest/bin/uv || { $(PYTHON) -m venv $(VENV)-lowest && \
	  $(VENV)-lowest/bin/python -m pip install --quiet uv; }
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python \
	  --resolution lowest-direct --editable '.[lab,timm,dev]'
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks

figures: $(READY)
	$(BIN)/python figures/draw.py

bench: $(READY)
	$(BIN)/python benchmarks/run.py

# The course as a site, every notebook run: site/index.html. Some ten minutes on 2 CPU cores.
book: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -M html book build/book -W --keep-going -E -j 2
	rm -rf site
	cp -R build/book/html site

# Slides of the notebooks, run: site/slides; the book has them too. Some ten minutes on 2 CPU cores.
slides: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python book/slides.py site

# Student versions, solutions and keys of the exercises, from notebooks/masters; some three minutes.
assignments: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/assignments.py

install: $(READY)

# Made anew where it is missing, and brought up to date where the dependencies have changed.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
	  { echo "ltml needs Python 3.11.4 or newer; name one with: make PYTHON=/path/to/python3 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[lab,timm,dev]'
	touch $@

clean:
	rm -rf runs build site book/notebooks .pytest_cache .ruff_cache .hypothesis
