# The verbs. `make run` and `make test` need git, make and Python 3.11 or newer; they set up the rest themselves.
.DEFAULT_GOAL := help
.PHONY: help run judge test lab check notebooks export save gauges branches readme lock hooks bench peers clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
# set in some containers; it would make every import slow and defeat the bytecode compiled at set-up
unexport PYTHONDONTWRITEBYTECODE

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY)  ## build the lake from the bundled real data, report on its quality, run the first tutorial
	@$(BIN)/python tools/run.py

judge: $(READY)  ## every gate on every shipped strategy, on the lake that `make run` built; red is a result, a crash fails
	@$(BIN)/python tools/judge.py

test: $(READY)  ## everything that must hold: structure, style, types, notebooks, properties, faults, the wheel
	@$(BIN)/python tools/verify.py

check: $(READY)  ## the quick part of `make test`: structure, style, types
	@$(BIN)/python tools/verify.py --quick

lab: $(READY)  ## JupyterLab in nbs/
	@$(BIN)/jupyter lab --notebook-dir=nbs

export: $(READY)  ## notebooks to package
	@$(BIN)/nbdev-export

save: $(READY)  ## run one notebook (NB=nbs/core/00_check.ipynb) or all; store outputs; export
	@$(BIN)/python tools/notebook.py save $(NB)

gauges: $(READY)  ## how the notebooks read: a table to look at
	@$(BIN)/python tools/gauges.py

branches: $(READY)  ## which branches of Guardian its own tests do not take
	@$(BIN)/python tools/branches.py

readme: $(READY)  ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

bench: $(READY)  ## every benchmark, as ratios against the named alternatives
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

peers:  ## the engines that the benchmarks measure beside ours, in environments of their own
	@grep -v '^#' benchmarks/peers.txt | while IFS=: read -r name packages; do \
	  $(PYTHON) -m venv .venv-peers/$$name && .venv-peers/$$name/bin/python -m pip install --quiet --prefer-binary $$packages || exit 1; done

lock: $(READY)  ## requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet -o requirements.lock

hooks: $(READY)  ## cell-wise git diff and merge for notebooks (edits your Jupyter configuration)
	@$(BIN)/nbdev-install-hooks

clean:  ## remove what runs and builds wrote; the environment stays
	@rm -rf lake lake-quarantine reports runs build dist .hypothesis .mypy_cache .ruff_cache .import_linter_cache *.egg-info

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) tools/bootstrap.py
