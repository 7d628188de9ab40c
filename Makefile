# make book    the book in build/html from the published results      PROFILE=smoke|quick|full|paper trains them all
#              DATA=folder of your own cases trains those of quick on it
# make test    every test                        make lint    style, types, import directions
# make lab     JupyterLab on the text notebooks  make lock    choose the versions anew
# make faults  thousand bad inputs, killed processes and damaged results (about 20 minutes; SEED=, a report in build/faults)
# make slides  a deck for each paper in build/slides, of the book's figures and findings, for journal clubs; offline
# make train   the runs of PROFILE alone, or those of EXPERIMENTS="name name"; what is cut off goes on where it was
# make publish finished runs of PROFILE into results/, which git keeps; make book takes them from there
# make withdraw EXPERIMENT=... RUNS=...   takes published runs out of results/ again, such as those whose settings have changed
# make verify  data, scores and first losses beside what is published (minutes)   PROFILE=book EXPERIMENTS= SETS=2 is quicker
# make reproduce EXPERIMENT=... RUNS=...   published runs trained again, and a page on how far apart they are
# make clean   remove what was made
# Each target does its own set-up in .venv; a GPU is used where its driver is found (see TORCH).
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?=
DATA    ?=
JOBS    ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# The build of torch: auto takes the one for this machine's NVIDIA driver, and the CPU build where there is none;
# cpu, cu128, ... choose it by name; empty takes what the package index has. Where pip is set up with a folder of wheels
# (find-links), the wheel in that folder counts.
TORCH   ?= auto
HASHES  ?=

# What a person types reaches commands by the environment and as it was typed: a shell never reads it, nor make's $$.
TYPED   := PROFILE DATA IXI AVMNIST DERM7PT RADPATH MS TCGA EXPERIMENTS EXPERIMENT RUNS SETS SEED
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)

# Where nothing keeps what Python has compiled, as in many containers, each of many processes compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

BIN     := $(VENV)/bin
GPUS    := $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
PIPELINE = $(BIN)/python -m pipeline book --cores $(JOBS) --resources gpu=$(GPUS) --show-failed-logs --quiet host reason

# uv does not read pip's settings, so a folder of wheels is passed on; torch's own index is asked only where there is none.
# The lock is used as constraints: it names CUDA packages too, and only a CUDA build of torch asks for them.
INSTALL = links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)}}"; \
  test -n "$$links" && backend= || backend="$(if $(TORCH),--torch-backend=$(TORCH))"; \
  UV_FIND_LINKS="$$links" $(BIN)/uv pip install --quiet --python $(BIN)/python $$backend -c requirements.lock

# HASHES=1: every package is the file whose hash is in the lock, or nothing is installed. With the package index's own
# build of torch, which on Linux brings the CUDA libraries (6 GB). Without build isolation nothing else is fetched.
HASHED = pip="$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps"; \
  $$pip --require-hashes -r requirements-hashed.lock; $$pip --no-build-isolation -e .

.PHONY: book slides test faults train publish withdraw verify reproduce lab lint lock clean setup
.DEFAULT_GOAL := book

book: $(VENV)/.ready
	@$(PIPELINE)
	@echo "Open file://$(CURDIR)/build/html/index.html"

slides: book
	@$(BIN)/python -m pipeline.slides build/html build/slides

test: $(VENV)/.ready
	env $(addprefix -u ,$(TYPED)) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

faults: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults --seed "$${SEED:-0}"

train: $(VENV)/.ready
	@$(PIPELINE) -- train

publish: $(VENV)/.ready
	$(BIN)/python -m pipeline publish $(PUBLISHED) $${EXPERIMENTS}

withdraw: $(VENV)/.ready
	$(BIN)/python -m pipeline withdraw $(PUBLISHED) "$${EXPERIMENT}" $${RUNS}

# what is published is the profile book, unless another is asked for
PUBLISHED = "$${PROFILE:-book}"
verify: $(VENV)/.ready
	$(BIN)/python -m pipeline verify $(PUBLISHED) $${EXPERIMENTS} --jobs $(JOBS) --sets "$${SETS:-0}"

reproduce: $(VENV)/.ready
	$(BIN)/python -m pipeline reproduce $(PUBLISHED) "$${EXPERIMENT}" $${RUNS}

lab: $(VENV)/.ready-lab
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for notebook in notebooks/*.md; do $(BIN)/jupytext --quiet --to ipynb --output - $$notebook \
	  | $(BIN)/ruff check --quiet --line-length 100 --stdin-filename $${notebook%.md}.ipynb -; done
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(if $(HASHES),$(HASHED),$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9; \
	  $(INSTALL) -e ".[book,test]")
	@touch $@

$(VENV)/.ready-lab: $(VENV)/.ready
	@$(if $(HASHES),:,$(INSTALL) -e ".[book,test,lab]")
	@# a text notebook opens as a notebook on double click; the setting stays inside the environment
	@JUPYTER_CONFIG_DIR=$(VENV)/etc/jupyter $(BIN)/jupytext-config set-default-viewer markdown myst
	@touch $@

# Keeps the versions of the present lock; UPGRADE=1 takes the newest. `universal`: one lock for every system and Python.
# The same versions once more with the hashes of the package index, for HASHES=1.
COMPILE = UV_FIND_LINKS= $(BIN)/uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.11 \
  --no-annotate --custom-compile-command "make lock"
lock: $(VENV)/.ready
	$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements.lock
	$(COMPILE) --generate-hashes -c requirements.lock -o requirements-hashed.lock

clean:
	rm -rf build .snakemake .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
