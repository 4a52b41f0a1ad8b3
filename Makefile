# In a fresh clone, `make demo` shows vectors, and `make test` runs the fast tests of every area.
# Needs Python 3.11 or later, gcc, make, git and a package index.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PHOTOS ?= samples/photos
# auto: the real module if the hub is reachable, else the stand-in.
MODULE ?= auto
PORT   ?= 8600
PYTHONS ?= 3.12 3.13
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := install --disable-pip-version-check
LOCKED := $(PIP) --require-hashes --no-deps
OURS   := client exporter rollout server
SHOWN  := $(PYTHON) scripts/pip_progress.py
# Processes that run tests: more than cores, because many tests wait.
WORKERS ?= 3
# Tests start many interpreters. Let them share compiled files, whatever the caller has set.
export PYTHONDONTWRITEBYTECODE :=
SHARED := -n $(WORKERS) --dist worksteal --max-worker-restart 0
PYTEST := $(BIN)/python -m pytest $(SHARED)

.PHONY: demo search test test-all test-samples test-protocols test-pythons environments \
        test-stack tools lint fix prose coverage protos check-protos lock metadata docs dist sbom test-dist test-aarch64 bench clean help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## export, serve and embed sample photos (MODULE=handle or path)
	@$(BIN)/python scripts/demo.py --module "$(MODULE)" --photos "$(PHOTOS)"

search: $(VENV)/.installed .venv-search/.installed ## visual search over a folder (PHOTOS=, PORT=)
	@$(BIN)/python scripts/search.py --module "$(MODULE)" --photos "$(PHOTOS)" --port "$(PORT)" \
	    --python .venv-search/bin/python

test: $(VENV)/.installed $(VENV)/.dev ## the fast tests of every area (TESTS=tests/client: of one)
	$(PYTEST) -m "not slow" $(TESTS)

test-all: $(VENV)/.installed $(VENV)/.dev ## every test (AFTER=test: without those of `make test`)
	$(PYTEST) $(if $(filter test,$(AFTER)),-m slow) $(TESTS)

test-samples: $(VENV)/.installed $(VENV)/.dev ## the tests of samples/
	@scripts/test_samples.sh $(PYTHON)

# tritonclient and kserve register different messages under the same names: one process per client.
test-protocols: $(VENV)/.installed .venv-protocols/.installed ## tritonclient, kserve and openai against the server
	.venv-protocols/bin/python -m pytest -W default tests/protocols/test_tritonclient.py
	.venv-protocols/bin/python -m pytest -W default tests/protocols/test_kserve.py \
	    tests/protocols/test_openai.py

test-pythons: ## the fast tests of client, command and server on other installed Pythons
	@scripts/test_pythons.sh $(PYTHONS)

environments: .venv-protocols/.installed ## make the environments of test-samples, -protocols and -pythons
	@scripts/test_samples.sh --install $(PYTHON)
	@scripts/test_pythons.sh --install $(PYTHONS)

test-stack: $(VENV)/.installed $(VENV)/.dev ## start the Compose stack and test it, if Docker is running
	@scripts/stack_engine.sh $(BIN)/python scripts/stack_test.py

tools: ## install optional tools of some tests: kustomize, schemas, promtool
	@scripts/tools.sh

lint: $(VENV)/.installed $(VENV)/.dev check-protos ## ruff, mypy, commit subjects, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/commit_subjects.py
	$(BIN)/mypy

fix: $(VENV)/.installed $(VENV)/.dev ## fix what ruff can fix, and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

prose: $(VENV)/.installed $(VENV)/.dev ## check the English of all prose
	$(BIN)/python -m pytest --quiet --noconftest tests/repository/test_prose.py

coverage: $(VENV)/.installed $(VENV)/.dev ## lines that the tests run, per distribution (TESTS=)
	@$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest $(SHARED) $(TESTS)
	@$(BIN)/coverage combine --quiet
	@for each in client exporter rollout server; do \
	    echo "$$each, % of lines: $$($(BIN)/coverage report --include="$$each/*" --format=total)"; \
	done

protos: .venv-protos/.installed ## regenerate the _tfs packages from protos/
	.venv-protos/bin/python scripts/generate_protos.py

check-protos: .venv-protos/.installed
	.venv-protos/bin/python scripts/generate_protos.py --check

lock: .venv-release/.installed ## write requirements.txt, with hashes (UPGRADE=1: newest versions)
	@UPGRADE=$(UPGRADE) scripts/lock.sh .venv-release/bin/uv

metadata: ## write version, authors, links and licence into the distributions, from pyproject.toml
	@$(PYTHON) scripts/metadata.py

docs: .venv-docs/.installed ## docs/ as a site in build/docs, with search and an API reference
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

dist: .venv-release/.installed ## wheels and source distributions, in dist/
	@scripts/dist.sh .venv-release/bin/python

sbom: .venv-release/.installed ## a bill of materials of each image's Python packages, in dist/
	@scripts/sbom.sh .venv-release/bin

test-dist: dist ## install what is in dist/ into empty environments, and use it
	@scripts/test_dist.sh 3.11 $(PYTHONS)

test-aarch64: dist ## run the client's wheel on emulated aarch64, with Debian's packages
	@scripts/test_aarch64.sh

bench: .venv-bench/.installed ## measure speed, compared with limits and peers (PARTS=, QUICK=1)
	@.venv-bench/bin/python -m bench $(PARTS) $(if $(QUICK),--quick)

clean: ## remove environments, models and caches
	rm -rf $(VENV) $(VENV)-3.* .venv-protos .venv-search .venv-samples .venv-protocols .venv-bench .venv-release .venv-docs build dist

$(VENV)/.installed: requirements.txt scripts/locked.py $(wildcard */pyproject.toml)
	@echo "Creating $(VENV) (TensorFlow is a large download; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PYTHON) scripts/locked.py $(OURS) editables hatchling openvino pillow pyarrow simplejpeg > $(VENV)/requirements.txt
	@$(SHOWN) $(BIN)/pip $(LOCKED) -r $(VENV)/requirements.txt
	@$(BIN)/pip $(PIP) --quiet --no-deps --no-build-isolation $(OURS:%=-e ./%)
	@touch $@

$(VENV)/.dev: requirements.txt $(VENV)/.installed
	@$(BIN)/pip $(LOCKED) --quiet -r requirements.txt
	@touch $@

# The samples need other packages than the project, so they have separate environments.
.venv-search/.installed: samples/visual_search/requirements.txt client/pyproject.toml
	@echo "Creating .venv-search for the sample"
	@$(PYTHON) -m venv .venv-search
	@$(SHOWN) .venv-search/bin/pip install --disable-pip-version-check -e ./client -r $<
	@touch $@

.venv-bench/.installed: bench/requirements.txt $(wildcard */pyproject.toml)
	@echo "Creating .venv-bench (TensorFlow and the peers are large downloads; some minutes)"
	@$(PYTHON) -m venv .venv-bench
	@$(SHOWN) .venv-bench/bin/pip install --disable-pip-version-check -r $< \
	    -e ./client -e ./exporter -e ./server[openvino] -e ./rollout
	@touch $@

.venv-protocols/.installed: tests/protocols/requirements.txt
	@echo "Creating .venv-protocols (tritonclient, kserve, openai; a minute)"
	@$(PYTHON) -m venv .venv-protocols
	@.venv-protocols/bin/pip install --quiet --no-compile --disable-pip-version-check -r $<
	@touch $@

# The oldest supported generator: its output also runs on newer protobuf runtimes.
.venv-protos/.installed: scripts/requirements-protos.txt
	@$(PYTHON) -m venv .venv-protos
	@.venv-protos/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Tools of packaging: they resolve, build and check.
.venv-release/.installed: scripts/requirements-release.txt
	@$(PYTHON) -m venv .venv-release
	@.venv-release/bin/pip $(PIP) --quiet -r $<
	@touch $@

.venv-docs/.installed: scripts/requirements-docs.txt
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/pip $(PIP) --quiet -r $<
	@touch $@
