# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
PYTHON := .venv/bin/python
STUDY ?= sample
DATA ?=
WORKERS ?= 1
THREADS ?= 1
SUBSET ?= 100
ACCEPT ?=
PORT ?=
BUILD ?=
MODEL ?=
NOTEBOOKS = $(filter-out $(COMPARISON),$(wildcard notebooks/*.ipynb))
# They show the committed predictions, so that their figures are the same wherever they are run.
COMPARISON = notebooks/11_comparison.ipynb notebooks/16_fusion.ipynb
# In a folder that goes away afterwards, with the published weights that are here: no committed report changes.
ON_SCRATCH = set -e; export STUDY_HOME=$$(mktemp -d) KERAS_BACKEND=torch; trap 'rm -rf "$$STUDY_HOME"' EXIT; \
	mkdir -p data/weights "$$STUDY_HOME/data"; ln -s "$(CURDIR)/data/weights" "$$STUDY_HOME/data/weights";
ON_COMMITTED = mkdir -p "$$STUDY_HOME/committed/reports"; cp -r reports/sample "$$STUDY_HOME/committed/reports"; \
	STUDY_HOME="$$STUDY_HOME/committed"
NBVAL = .venv/bin/pytest -n 2 --dist loadfile --nbval-lax --nbval-sanitize-with tests/nbval.cfg
EXECUTE = .venv/bin/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False

export WORKERS THREADS

.DEFAULT_GOAL := help
.PHONY: help env study poses doctor try tune slurm test lab notebooks bench app lint-app data-wlasl

help:  ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

env: .venv/.done  ## build .venv/ from requirements.lock (again only when the lock or pyproject.toml changed)

study: .venv/.done  ## run a study and write reports/<study>/: [STUDY=sample] [DATA=<root of the WLASL data>]
	@$(PYTHON) workflow/run.py "$(STUDY)" "$(DATA)" --cores all

doctor: .venv/.done  ## what will a study find in its data, and what will it cost here? trains nothing: [STUDY=…] [DATA=…]
	@KERAS_BACKEND=torch $(PYTHON) workflow/doctor.py "$(STUDY)" "$(DATA)"

try: .venv/.done  ## every step of a study with one epoch a training, and no report kept: does all of it run here?
	@$(ON_SCRATCH) STUDY_EPOCHS=1 $(PYTHON) workflow/run.py "$(STUDY)" "$(DATA)" --cores all

tune: .venv/.done  ## the searches of a study alone: STUDY=<name> [DATA=<root>] [WORKERS=2 processes for each search]
	@$(PYTHON) workflow/run.py "$(STUDY)" "$(DATA)" tune --cores all

slurm: THREADS = 4
slurm: .venv/.done  ## the same as `study`, every step a job on a SLURM cluster: [THREADS=4 of each training]
	@$(PYTHON) workflow/run.py "$(STUDY)" "$(DATA)" --workflow-profile workflow/profiles/slurm

test: .venv/.done lint-app  ## ruff, ESLint, pytest, the sample study from nothing (one epoch a training), and nbval on its notebooks
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pytest -n 2 --dist loadfile
	@$(ON_SCRATCH) $(ON_COMMITTED) $(NBVAL) $(COMPARISON); export STUDY_EPOCHS=1; \
	$(PYTHON) workflow/run.py sample "" --cores all; $(NBVAL) $(NOTEBOOKS)

# Elsewhere, as npm puts its packages beside the files that it checks.
lint-app:
	@command -v npm > /dev/null || { echo "npm is not here, so the modules of the page are not linted"; exit 0; }; \
	mkdir -p data/npm-lint && cp lib/app/*.js* lib/app/*.mjs lib/app/*.css lib/app/*.html data/npm-lint/ && cd data/npm-lint && \
	{ npm ls --silent > /dev/null 2>&1 || npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || \
	{ echo "npm cannot fetch ESLint, so the modules of the page are not linted"; exit 0; }; } && npm run --silent lint

poses: .venv/.done | $(UV)  ## find poses in a study's videos with MediaPipe: STUDY=<name> DATA=<root> [FACE=yes: all points of the face]
	@UV="$(UV)" $(PYTHON) workflow/poses.py "$(STUDY)" "$(DATA)" $(if $(FACE),--face)

lab: .venv/.done  ## JupyterLab on the notebooks
	KERAS_BACKEND=torch .venv/bin/jupyter lab --notebook-dir=notebooks

notebooks: .venv/.done  ## run the committed notebooks again, in place, on the sample study
	@$(ON_SCRATCH) $(ON_COMMITTED) $(EXECUTE) $(COMPARISON); $(PYTHON) workflow/run.py sample "" --cores all; \
	for notebook in $(NOTEBOOKS); do $(EXECUTE) "$$notebook"; done; \
	$(PYTHON) workflow/run_notebook.py --tidy $(NOTEBOOKS) $(COMPARISON)

bench: .venv/.done  ## the benchmarks, as ratios against peers: [PART=clips]
	@PYTHONPATH=tests:data $(PYTHON) -m bench $(PART)

app: .venv/.done  ## the page for browsers: build it into data/app/ and serve it: [PORT=8000] [BUILD=only: do not serve] [MODEL=<file>.onnx]
	@$(PYTHON) -m lib.app $(if $(PORT),--port $(PORT)) $(if $(BUILD),--only) $(if $(MODEL),--model "$(MODEL)")

data-wlasl: .venv/.done  ## download WLASL's videos: DATA=<root> [SUBSET=100], ACCEPT=yes for its licence (see data/README.md)
	@$(PYTHON) data/download.py "$(DATA)" "$(SUBSET)" "$(ACCEPT)"

# uv where the machine has it, else in a virtual environment of its own. The package itself is editable:
# the notebooks import lib/ as it stands. Bytecode is compiled once here: a study starts a process for each notebook,
# and where Python may not write it later (PYTHONDONTWRITEBYTECODE, as in many containers), each `import keras` took
# 22 s of processor time instead of 7.
UV := $(or $(shell command -v uv),.uv/bin/uv)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet uv

.venv/.done: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python python3 .venv
	$(UV) pip sync --quiet --compile-bytecode --python $(PYTHON) requirements.lock
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@
