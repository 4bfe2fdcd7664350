.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
# Test processes: more than two for each core of the CI machine, because half of the time they wait for servers, and four
# leave a seventh of its processor time unused. make test JOBS=8
JOBS ?= 5

# Without uv on the machine, one is put into .tools/. It comes first in PATH, for generated services to find it too.
UV := $(if $(shell command -v uv 2>/dev/null),uv,.tools/bin/uv)
export PATH := $(CURDIR)/.tools/bin:$(value PATH)
# The Python that runs here if it is new enough; otherwise uv fetches one. (Named, because uv stops at pyenv's shims.)
ifndef UV_PYTHON
UV_PYTHON := $(shell $(PYTHON) -c 'import sys; print(sys.executable if sys.version_info >= (3, 11) else "3.14")' 2>/dev/null || echo 3.14)
endif
export UV_PYTHON

# Hundreds of Python processes are started here: each would compile all that it imports, a second or two, if the
# environment told it to keep nothing.
export PYTHONDONTWRITEBYTECODE :=

# The parts of lint, which run at the same time.
LINT := lint-prose lint-pages lint-types lint-style lint-imports

.PHONY: $(LINT) help demo example setup test test-fast tools compiled lint format docs pictures screenshots simulation chaos bench bench-messages bench-effect bench-calls bench-fleet bench-loop bench-image bench-page bench-product bench-sagas

help: ## This list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | awk -F '\t' '{ printf "  %-12s %s\n", $$1, $$2 }'

example: setup ## Make the example product of five services in build/shop, for `fleet up`
	@.venv/bin/python -m examples

demo: $(filter .tools/%,$(UV)) ## Generate a service, run it, and talk to it; then a product of five (CI=1: end by itself)
	@$(UV) sync --quiet --inexact --only-group demo
	@.venv/bin/python -m demo

setup: $(filter .tools/%,$(UV)) ## Install what the tests need
	@$(UV) sync --quiet

test: setup ## All tests, real parts included (20 to 25 minutes on two idle cores)
	@$(MAKE) --no-print-directory -j 3 tools compiled $(LINT)
	@.venv/bin/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-fast: setup lint ## Lint, and the tests that start no server and take less than a quarter of a second (about a minute)
	@.venv/bin/python -m pytest -m "not slow and not server" -n $(JOBS) --dist loadgroup $(ARGS)

tools: setup ## Install what the tests need beyond Python packages, as far as this machine allows
	@.venv/bin/python -m tests.support.needs

# In a fresh clone each of the test processes would compile all modules of the tests and of what they import.
compiled: setup
	@.venv/bin/python -m pytest --collect-only --quiet > /dev/null || true

lint: setup ## Format and lint rules of this repository, types of what is delivered
	@$(MAKE) --no-print-directory -j 2 $(LINT)

lint-style: setup
	@.venv/bin/ruff format --check --quiet . template/chassis || { echo "run 'make format'"; exit 1; }
	@.venv/bin/ruff check --quiet . template/chassis || { echo "'make format' fixes what can be fixed safely"; exit 1; }

lint-types: setup
	@.venv/bin/ty check --no-progress --output-format concise fleet docs template/chassis/src || { echo "make the annotations and the code agree"; exit 1; }

lint-imports: setup
	@for config in pyproject.toml template/chassis/pyproject.toml; do .venv/bin/lint-imports $$config --no-cache --no-logo > .imports.log || { cat .imports.log; rm .imports.log; echo "move the code, or give a new module its place in $$config"; exit 1; }; rm .imports.log; done

lint-pages: setup
	@.venv/bin/python -m docs.skill --check || { echo "the list of docs/how-to/README.md has changed: run 'make docs'"; exit 1; }
	@.venv/bin/python -m docs.site || { echo "the documentation site has a fault"; exit 1; }

lint-prose: setup
	@.venv/bin/python -m docs.prose || { echo "rewrite these sentences by CONTRIBUTING.md, or name code as code: \`told\`"; exit 1; }

format: setup ## Format, and fix what lint can fix
	@.venv/bin/ruff check --fix --quiet . template/chassis ; .venv/bin/ruff format . template/chassis

docs: setup ## Write the reference pages from their sources, and build the site into build/documentation/site
	@.venv/bin/python docs/generate_questions.py
	@.venv/bin/python docs/generate_conventions.py
	@.venv/bin/python -m docs.skill
	@.venv/bin/python -m docs.site && echo "open build/documentation/site/index.html"

pictures: setup ## Make the pictures of README.md again, from the demo and the fleet's page (a minute)
	@.venv/bin/python -m docs.pictures

screenshots: setup ## Keep screenshots of the page of example fleets, in each width and scheme, in build/screenshots (2 minutes)
	@.venv/bin/python -m docs.screenshots $(ARGS)

simulation: setup ## Forty edited services through every version, all of them by plain Copier too (about 12 minutes)
	@SERVICES=40 BY_PLAIN_UPDATE=40 GREEN=3 .venv/bin/python -m pytest -n $(JOBS) --dist loadgroup tests/fleet/update/test_simulation.py $(ARGS)

chaos: setup ## Torment two talking services in 40 ways on each broker, sagas, repeated POSTs, a neighbour in trouble and attacks on the memory, and count what is lost (about 30 minutes)
	@for broker in nats kafka rabbitmq; do .venv/bin/python -m tests.service.chaos $$broker $(ARGS) || exit 1; done
	@for broker in nats kafka rabbitmq; do .venv/bin/python -m tests.service.chaos.sagas $$broker || exit 1; done
	@.venv/bin/python -m tests.service.chaos.repeats
	@.venv/bin/python -m tests.service.chaos.calls
	@ATTACK_SECONDS=5 .venv/bin/python -m pytest -q tests/chassis/web/test_memory.py

bench: setup ## Measure a generated service beside a bare application; prints ratios
	@.venv/bin/python -m bench.http $(ARGS)

bench-messages: setup ## Measure relay and consumer beside each broker's own client; prints ratios
	@.venv/bin/python -m bench.messages $(ARGS)

bench-effect: setup ## Measure two generated services from a POST to its effect, and bare clients; prints ratios
	@.venv/bin/python -m bench.effect $(ARGS)

bench-calls: setup ## Measure a call by the policy of chassis.neighbours beside bare httpx2; prints ratios
	@.venv/bin/python -m bench.calls $(ARGS)

bench-fleet: setup ## Measure fleet on 1, 50 and 200 services, and beside cruft; prints ratios
	@.venv/bin/python -m bench.fleet $(ARGS)

bench-loop: setup ## Measure the loop of edit, run and debug under make dev in a generated service
	@.venv/bin/python -m bench.loop $(ARGS)

bench-image: setup ## Measure the image and its builds beside a naive Dockerfile; prints ratios
	@.venv/bin/python -m bench.image $(ARGS)

bench-page: setup ## Measure the page of traces with 10,000 spans in a trace, and with 200,000 spans
	@.venv/bin/python -m bench.page

bench-product: setup ## Measure fleet up on 5 and 12 generated services: start, memory, work at rest
	@.venv/bin/python -m bench.product $(ARGS)

bench-sagas: setup ## Measure a backlog of sagas next to Absurd and DBOS, and the cost of 100,000 sagas that wait
	@$(UV) sync --quiet --inexact --group engines
	@.venv/bin/python -m bench.sagas $(ARGS)

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "this needs Python 3.11 or newer: set PYTHON=…, or install uv"; exit 1; }
	@echo "installing uv into .tools/"
	@$(PYTHON) -m venv .tools || { echo "this Python has no venv: install it (Debian: apt install python3-venv), or install uv"; exit 1; }
	@.tools/bin/pip install --quiet --disable-pip-version-check "uv~=0.13.9"
