# `make` lists the targets. Everything runs in .venv, which `make setup` builds from requirements.lock.
PYTHON ?= python3
WORKERS ?= 2
BENCH ?= *
BESIDE_PEERS := serving alarms drift estimate estimateclasses
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo check test slow clients format docs bench bench-serving lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## build .venv from the hash-checked lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Holdfast needs Python 3.11 or newer: make setup PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: setup  ## the main job on a year of real flights, under 4 minutes
	$(BIN)/holdfast demo

check: setup  ## format, lint, types, import contracts, docs whole: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/habits -q

test: setup  ## every test but the long ones, under 10 minutes
	$(BIN)/python -m pytest -n $(WORKERS) -q -m "not long"

slow: setup  ## the long tests, and the fuzzer where atheris is installed
	$(BIN)/python -m pytest -q -m long || test $$? -eq 5  # 5: there is none
	$(BIN)/python tests/fuzz/fuzz_http.py -max_total_time=120 -max_len=1200 -timeout=20

format: setup  ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## write the reference tables anew from the code
	$(BIN)/python docs/generate.py

bench: setup  ## run the benchmarks of Holdfast alone; figures go to bench/results/*.json; BENCH=name runs any one
	@test "$(BENCH)" != serving || { echo "serving has a target of its own: make bench-serving"; exit 1; }
	@ls bench/$(BENCH).py >/dev/null 2>&1 || { echo "no benchmark bench/$(BENCH).py"; exit 1; }
	@for file in $(if $(filter *,$(BENCH)),$(filter-out $(BESIDE_PEERS:%=bench/%.py),$(wildcard bench/*.py)),bench/$(BENCH).py); do name=$$(basename $$file .py); echo "== $$name"; \
		$(BIN)/python $$file --json bench/results/$$name.json || exit 1; done

bench-serving: setup  ## serving beside its peers and the floor, 17 minutes; SERVING="--peers all" for more of them
	$(BIN)/python bench/serving.py --json bench/results/serving.json --docs docs/why/serving-speed.md $(SERVING)

clients: .venv-clients/.ready  ## build .venv-clients, the foreign clients that tests/clients ask with

.venv-clients/.ready: tests/clients/requirements.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/clients/requirements.txt
	@touch $@

lock:  ## resolve the dependencies anew; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra demo --extra kafka --extra otel --group dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" tests/clients/requirements.in -o tests/clients/requirements.txt

clean:  ## remove .venv and caches
	rm -rf .venv .venv-clients .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
