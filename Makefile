# Everything runs from one virtual environment, made on first use: `make help` lists what there is.
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
VERIFY ?= .venv-verify
ARGS ?=
DEMO_CONFIG ?= configs/gan/digits_dcgan.py:accelerator=cpu

PYTHON_GIVEN := $(filter command environment,$(firstword $(origin PYTHON)))
BIN := $(VENV)/bin
# Without compiled bytecode `import jax` takes three times as long, and some machines switch it off.
PIP := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pip -qq --disable-pip-version-check --no-input install \
	--progress-bar off --compile --constraint constraints.txt

.DEFAULT_GOAL := help
.SUFFIXES:
.NOTPARALLEL:
.PHONY: help setup demo test slurm-test drills soak lint format typecheck bench verify-metrics docs-check constraints clean python-ok

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: PYTHON=$(PYTHON)  VENV=$(VENV)  ARGS='...' for the test, drill and bench programs"

setup: $(VENV)/.ok-dev ## install the package with the development tools

demo: $(VENV)/.ok-core ## train a small model on the CPU and say where its pictures are
	rm -rf runs/demo
	$(BIN)/python -m experiments.train --config=$(DEMO_CONFIG) --workdir=runs/demo $(ARGS)
	@echo "More:        $(BIN)/tensorboard --logdir=runs; $(BIN)/python -m experiments.sample --workdir=runs/demo --labels=3,8"

test: $(VENV)/.ok-test ## run the tests (ARGS="-m 'not slow'" leaves out the long ones)
	$(BIN)/python -m pytest $(ARGS)

slurm-test: $(VENV)/.ok-test ## train through a Slurm started for it (needs slurmctld slurmd slurm-client munge)
	$(BIN)/python -m pytest tests/slurm $(ARGS)

drills: $(VENV)/.ok-test ## kill, fill up and damage runs, and print what survived (half an hour; as root, failing disks too)
	$(BIN)/python -m tests.drills $(ARGS)

soak: $(VENV)/.ok-test ## train 200,000 steps and say whether memory or the time of a step grows
	$(BIN)/python -m tests.drills.soak $(ARGS)

lint: $(VENV)/.ok-dev ## check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.ok-dev ## mend what can be mended of style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

typecheck: $(VENV)/.ok-dev ## check types
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: $(VENV)/.ok-test $(PEERS)/.ok ## measure speed against PyTorch and Keras into docs/performance.md (ten minutes)
	$(BIN)/python -m benchmarks.speed --torch-python=$(PEERS)/bin/python --keras-python=$(PEERS)/bin/python \
		--output=docs/performance.md $(ARGS)

# PyTorch and TensorFlow stay out of genjax's environment.
$(PEERS)/.ok: benchmarks/requirements.txt constraints.txt | $(VENV)/.ok-test
	@echo "Installing PyTorch, TensorFlow and Keras into $(PEERS) (minutes, the first time)."
	@rm -rf $(PEERS) && $(BIN)/python -m venv $(PEERS)
	@$(subst $(BIN)/python,$(PEERS)/bin/python,$(PIP)) --requirement benchmarks/requirements.txt
	@touch $@

verify-metrics: $(VERIFY)/.ok ## compare the metrics with those of other packages, computed anew
	@failed=; for script in tests/reference/*metrics*.py; do \
		PYTHONPATH=. $(VERIFY)/bin/python $$script --check || failed=1; done; [ -z "$$failed" ]

# The packages that metrics are compared with stay out of genjax's environment, too.
$(VERIFY)/.ok: tests/reference/metrics_requirements.txt constraints.txt | $(VENV)/.ok-test
	@echo "Installing PyTorch and the packages with other metrics into $(VERIFY) (minutes, the first time)."
	@rm -rf $(VERIFY) && $(BIN)/python -m venv $(VERIFY)
	@$(subst $(BIN)/python,$(VERIFY)/bin/python,$(PIP)) --requirement tests/reference/metrics_requirements.txt
	@$(subst $(BIN)/python,$(VERIFY)/bin/python,$(PIP)) --no-deps disentanglement-lib==1.5
	@touch $@

docs-check: $(VENV)/.ok-test ## check that links, paths and commands in the documentation hold
	$(BIN)/python -m pytest tests/test_docs.py $(ARGS)

constraints: ## bring constraints.txt up to date with pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "make constraints needs uv: $(PYTHON) -m pip install uv" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra dev --extra prepare --strip-extras \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.tmp pyproject.toml
	@grep '^#' constraints.txt > constraints.new && cat constraints.tmp >> constraints.new
	@mv constraints.new constraints.txt && rm constraints.tmp

clean: ## remove the environments, caches and build output; runs/ stays
	if [ -e $(VENV)/pyvenv.cfg ] || [ -e $(VENV)/.busy ]; then rm -rf $(VENV); fi
	if [ -e $(PEERS)/pyvenv.cfg ]; then rm -rf $(PEERS); fi
	if [ -e $(VERIFY)/pyvenv.cfg ]; then rm -rf $(VERIFY); fi
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist genjax.egg-info
	find . -path './.?*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written only after its install has succeeded. A set-up that was cut short leaves .busy behind, and the next
# one starts afresh: pip can take a half-copied package for an installed one.
$(VENV)/.ok-%: pyproject.toml constraints.txt | python-ok
	@if [ -e $(VENV)/.busy ]; then echo "An earlier set-up did not finish; starting afresh."; rm -rf $(VENV); fi
	@if [ ! -e $(VENV)/pyvenv.cfg ]; then mkdir -p $(VENV) && : > $(VENV)/.busy \
		&& echo "Making $(VENV) with $$($(PYTHON) --version)." && $(PYTHON) -m venv $(VENV); fi
	@: > $(VENV)/.busy && rm -f $(VENV)/.ok-*
	@echo "Installing genjax$(patsubst [core],,[$*]) into $(VENV) (minutes, the first time)."
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable '.$(patsubst [core],,[$*])'
	@rm $(VENV)/.busy && touch $(VENV)/.ok-core \
		$(if $(filter test dev,$*),$(VENV)/.ok-test) $(if $(filter dev,$*),$(VENV)/.ok-dev)

# An environment that is there is used as it is; otherwise PYTHON has to be able to make one.
python-ok:
	@if [ -x $(BIN)/python ] && [ ! -e $(VENV)/.busy ]; then \
		has=$$($(BIN)/python -c 'import sys; print(sys.version_info[:2])'); \
		[ -z "$(PYTHON_GIVEN)" ] || [ "$$has" = "$$($(PYTHON) -c 'import sys; print(sys.version_info[:2])')" ] || { \
			echo "$(VENV) was made with another Python than PYTHON=$(PYTHON): add VENV=.venv-other, or remove it." >&2; exit 1; }; \
	elif [ -e $(VENV) ] && [ ! -e $(VENV)/pyvenv.cfg ] && [ ! -e $(VENV)/.busy ]; then \
		echo "VENV=$(VENV) exists and is no virtual environment: choose another name." >&2; exit 1; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "genjax needs Python 3.11 or later, and '$(PYTHON)' is not:" \
			"run make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
	fi
