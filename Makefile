# The commands of this project. `make up` runs the product, `make test` passes its tests; both do all the set-up.
PYTHON ?= python3
BIN := .venv/bin
WEB := sinks/live/web
# Processes that share the tests: most of them wait for a server. JOBS=0 runs them one after another.
JOBS ?= 3
CONSUMERS := tests/consumers
NODE_CLIENT := tests/deploy/clickhouse/node
PEERS := tests/benchmarks/peers

.PHONY: help setup up test check format bench bench-docs docs soak fuzz chaos intervals screenshots lock clean

help:
	@echo "make up      run everything on this machine (Ctrl-C stops it)"
	@echo "make test    run the tests"
	@echo "make check   formatting, lint, types"
	@echo "make bench   benchmarks; make bench-docs writes what they found into docs/"
	@echo "make soak    a trading week with a fault every virtual minute; ten real minutes without Kafka"
	@echo "make fuzz    a million wrong frames"
	@echo "make chaos   100,000 events while workers and broker are killed at random; 200,000 rows while the sink is"
	@echo "make intervals  the intervals of the analytics on 200 worlds and 200 markets (about four minutes)"
	@echo "make screenshots  every view of the dashboard × language × theme × width, into .cache/screenshots"
	@echo "make docs    write docs/asyncapi.yaml, docs/metrics.md and hitstream.example.toml anew"
	@echo "make lock    resolve the dependencies anew"

setup: .venv/.installed $(WEB)/dist/.built

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Hitstream needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Use make PYTHON=python3.12 …"; exit 1; }
	@echo "· Python packages into .venv (first time: about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(WEB)/node_modules/.installed: $(WEB)/package-lock.json
	@command -v npm >/dev/null || { echo "The dashboard is built with Node.js 20 or newer; install it (https://nodejs.org)."; exit 1; }
	@echo "· dashboard packages"
	@cd $(WEB) && npm ci --silent --no-progress
	@touch $@

# The JavaScript that the tests run: the consumer of the documentation, ClickHouse's own client.
$(CONSUMERS)/node_modules/.installed $(NODE_CLIENT)/node_modules/.installed: %/node_modules/.installed: %/package-lock.json
	@echo "· JavaScript packages for $*"
	@cd $* && npm ci --silent --no-progress
	@touch $@

$(WEB)/dist/.built: $(WEB)/node_modules/.installed $(shell find $(WEB)/src $(WEB)/public -type f 2>/dev/null) $(wildcard $(WEB)/*.json $(WEB)/*.ts $(WEB)/*.js $(WEB)/index.html)
	@echo "· dashboard"
	@cd $(WEB) && npm run --silent build -- --logLevel warn
	@touch $@

up: setup
	@exec $(BIN)/hitstream up $(ARGS)

test: setup $(CONSUMERS)/node_modules/.installed $(NODE_CLIENT)/node_modules/.installed
	@sh tests/browser.sh
	@cd $(WEB) && npm test --silent
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@cd $(WEB) && npm run --silent check

format: .venv/.installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# What the benchmarks compare the product with, and the profiler: in an environment of their own, as their bounds differ.
$(PEERS)/.venv/.installed: $(PEERS)/requirements.lock
	@echo "· what the benchmarks compare with"
	@test -x $(PEERS)/.venv/bin/python || $(PYTHON) -m venv $(PEERS)/.venv
	@$(PEERS)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(PEERS)/requirements.lock
	@touch $@

# ARGS="-k ingest" runs some of them. Every result is kept in .bench/results.jsonl, the last one of each counts.
bench: setup $(PEERS)/.venv/.installed
	@mkdir -p .bench
	@HITSTREAM_TEST_RESULTS=$${HITSTREAM_TEST_RESULTS:-$(CURDIR)/.bench/results.jsonl} \
	  $(BIN)/python -m pytest tests/benchmarks -o python_files='bench_*.py' -o python_functions='bench_*' -s --timeout=0 $(ARGS)

bench-docs: .venv/.installed
	@$(BIN)/python tests/benchmarks/harness.py .bench/results.jsonl --into docs/performance*.md docs/clickhouse.md

soak: setup
	@$(BIN)/python -m pytest tests/soak tests/e2e --override-ini python_files='soak_*.py' -s --timeout=0 $(ARGS)

fuzz: setup
	@HITSTREAM_TEST_FUZZ=1000000 $(BIN)/python -m pytest tests/producers/kiwoom/test_fuzz.py -s --timeout=0 $(ARGS)

chaos: setup
	@$(BIN)/python -m pytest tests/streams tests/sinks -o python_files='chaos_*.py' -o python_functions='chaos_*' -s --timeout=0 $(ARGS)

intervals: setup
	@HITSTREAM_TEST_WORLDS=200 $(BIN)/python -m pytest tests/sinks/clickhouse/test_intervals.py -s --timeout=0 $(ARGS)

screenshots: setup
	@$(BIN)/python tests/e2e/screenshots.py $(ARGS)

docs: .venv/.installed
	@$(BIN)/python -m deploy.asyncapi
	@$(BIN)/python -m deploy.metrics
	@$(BIN)/hitstream config --example > hitstream.example.toml

# Universal (every platform) and with hashes; without index addresses, so that pip uses the machine's own.
lock:
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra dev pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  $(PEERS)/requirements.in -o $(PEERS)/requirements.lock

clean:
	rm -rf .venv $(PEERS)/.venv $(WEB)/node_modules $(WEB)/dist $(CONSUMERS)/node_modules $(NODE_CLIENT)/node_modules .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .bench
