# `make` alone prints its help. Whatever the targets fetch or make lies in .local/.

# The interpreter to build on: 3.11 or later.
PYTHON ?= python3
# Arguments for the program that a target runs: make test ARGS='-k provision -x'
ARGS ?=
UV_VERSION := 0.13.9

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .local/venv/bin
READY := .local/venv/.ready
UV_HOME := .local/tools/uv-$(UV_VERSION)
UV := $(UV_HOME)/bin/uv
# Four at a time: the tests start services and emulators, and wait for them. ARGS='-n 0' is for the debugger.
PYTEST := $(BIN)/python -m pytest --numprocesses 4 --dist worksteal
SHELL_SCRIPTS = .ci/run $(wildcard *.sh */*.sh */*/*.sh)

export UV_PROJECT_ENVIRONMENT := .local/venv
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
# Somebody without a home directory has nowhere to keep what uv downloads.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
  export UV_NO_CACHE := 1
endif

.PHONY: help
help: ## Print this help.
	@echo 'Usage: make TARGET'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) softhsm ## Get everything the other targets need; they all do it themselves.

.PHONY: demo
demo: setup ## Sign a settlement batch, from queue to queue, and verify it.
	@$(BIN)/signer demo $(ARGS)

.PHONY: run
run: setup ## Keep the demo's stack up to play with.
	@$(BIN)/signer demo --keep $(ARGS)

.PHONY: drill
drill: setup shim ## Let the HSM fail in every way under load, and prove that nothing is lost.
	@$(BIN)/signer drill $(ARGS)

.PHONY: soak
soak: setup shim ## The same for 20 minutes, with a fault at random every 5 s.
	@$(BIN)/signer drill --soak 20 $(ARGS)

.PHONY: chaos
chaos: setup ## Kill the service 200 times, let the network fail, and prove that nothing is lost or doubled; twice.
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: mtls
mtls: setup ## Measure what mutual TLS costs, side by side with plain HTTP.
	@$(BIN)/python -m loadtest.mtls $(ARGS)

.PHONY: test
test: setup shim limit ## Run the tests, over plain SoftHSM and over one that is like CloudHSM.
	@$(PYTEST) $(ARGS)
	@$(PYTEST) --preset cloudhsm $(ARGS) $(if $(ARGS),|| test $$? = 5)

.PHONY: rotation
rotation: setup ## Rotate a key under load, over two processes, and prove that nothing was signed wrong.
	@$(BIN)/python -m loadtest.rotation $(ARGS)

.PHONY: ledger-rows
ledger-rows: $(READY) ## Measure what a million rows cost the embedded ledger, beside a thousand.
	@$(BIN)/python -m loadtest.ledger_rows $(ARGS)

.PHONY: fuzz
fuzz: setup ## Give every parser whatever comes, for ten minutes (ARGS='--seconds 60').
	@$(BIN)/python -m tests.fuzz.parsers $(ARGS)

.PHONY: schemathesis
schemathesis: setup shim ## Hold every endpoint to its OpenAPI description, with each credential and with none.
	@$(BIN)/python -m tests.fuzz.api $(ARGS)

.PHONY: fairness
fairness: setup ## Measure how long a batch of one waits beside a batch of ten thousand.
	@$(BIN)/python -m loadtest.fairness $(ARGS)

.PHONY: hostile
hostile: setup ## Send 100,000 hostile bodies, and account for each.
	@$(BIN)/python -m tests.hostile $(ARGS)

.PHONY: bench
bench: setup shim limit ## Measure the service against the limit of its HSM module; ARGS=--full for all of it.
	@$(BIN)/python -m loadtest.bench $(ARGS)

# REV: the commit, branch or tag to compare with.
REV ?= HEAD~1
.PHONY: bench-compare
bench-compare: setup shim limit ## Measure this tree and the revision REV side by side: make bench-compare REV=main.
	@$(BIN)/python -m loadtest.bench.compare $(REV) $(ARGS)

.PHONY: loadtest
loadtest: setup shim limit ## Hold 200 transactions a second for 5 minutes on each entrance, over a module that takes 5-10 ms.
	@status=0; for target in http sqs; do \
	  $(BIN)/python -m loadtest --target $$target --rate 200 --duration 300 $(ARGS) || status=$$?; \
	  ((status < 128)) || break; \
	done; exit $$status

.PHONY: lint
lint: $(READY) ## Check style, types, layers, scripts, Dockerfile and lock file; change nothing.
	$(UV) lock --check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/hadolint Dockerfile

.PHONY: format
format: $(READY) ## Format the code, and mend what the linter can.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: clean
clean: ## Remove .local/ and all that is in it, tokens and keys too.
	rm -rf .local

.PHONY: softhsm
softhsm:
	@softhsm/install.sh

.PHONY: shim
shim:
	@softhsm/shim/build.sh

.PHONY: limit
limit:
	@loadtest/limit/build.sh

$(READY): pyproject.toml uv.lock | $(UV)
	@echo 'Setting up .local/venv' >&2
	@$(UV) sync --quiet --locked --python '$(PYTHON)'
	@touch $@

# The uv of this machine if its minor version is ours, else our own. Debian's Python comes without venv and pip.
$(UV):
	@if [[ "$$(uv --version 2>/dev/null)" == 'uv $(basename $(UV_VERSION)).'* ]]; then \
	  mkdir -p $(@D); ln -sf "$$(command -v uv)" $@; exit; \
	fi; \
	echo 'Installing uv $(UV_VERSION) into $(UV_HOME)' >&2; \
	rm -rf $(UV_HOME); \
	has() { $(PYTHON) -c "import $$1" 2>/dev/null; }; \
	as_root() { if [[ $$(id -u) == 0 ]]; then "$$@"; else sudo -n "$$@" 2>/dev/null; fi; }; \
	if ! has ensurepip && ! has pip; then \
	  apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$$@" >&2; }; \
	  apt update && apt install -y --no-install-recommends python3-venv || true; \
	fi; \
	if has ensurepip; then \
	  $(PYTHON) -m venv $(UV_HOME); \
	  $(UV_HOME)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	elif has pip; then \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --target $(UV_HOME) uv==$(UV_VERSION); \
	else \
	  echo '$(PYTHON) has neither venv nor pip: install one (apt-get install python3-venv), or uv itself.' >&2; \
	  exit 1; \
	fi
