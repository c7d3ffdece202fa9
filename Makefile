# The interpreter .venv is made with: make demo PYTHON=python3.12
PYTHON ?= python3
# Passed on to the demo, or to pytest: make demo ARGS=--help
ARGS ?=

# One more than the two cores of a small machine: the slow tests wait for processes of their own.
TEST_PROCESSES ?= 3

# Of the simulation: make simulate SEEDS=10000
SEEDS ?= 500

# Ctrl-C reaches make and the command alike: the command cleans up, the recipe's shell ends without a
# word, and make reports the interrupt.
QUIETLY := trap 'exit 0' INT;

.DEFAULT_GOAL := help
.PHONY: help demo test simulate fuzz bench lake lint clean

help:  ## list the targets
	@awk -F':  ## ' '/^[a-z]+:  ## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo:  ## run the pipeline on this machine (ARGS=...)
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py run && .venv/bin/millrace demo $(ARGS)

test:  ## run the tests (ARGS=...)
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py dev && \
		.venv/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile \
			--no-loadscope-reorder $(ARGS)

# Of the fuzzer: how many events, and the seed of the first thousand.
EVENTS ?= 200000
FIRST_SEED ?= 1

fuzz:  ## fuzzed events through the handlers (EVENTS=200000 FIRST_SEED=1)
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py dev && \
		.venv/bin/python -m tests.fuzz --events $(EVENTS) --first-seed $(FIRST_SEED)

simulate:  ## run the pipeline under seeded faults (SEEDS=n)
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py dev && \
		.venv/bin/python -m infra.simulation --seeds $(SEEDS) $(ARGS)

# Of a benchmark: where its table, JSON file and chart go. BENCH_QUICK=1 takes under a minute.
OUT ?= build/$@

bench:  ## the path of a record beside what people write (BENCH_QUICK=1 OUT=build/bench)
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py dev && \
		.venv/bin/python -m loadtests.bench --out $(OUT) $(ARGS)

lake:  ## a lake of 5 million records beside what Firehose leaves (LAKE_QUICK=1 OUT=build/lake)
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py dev && \
		.venv/bin/python -m loadtests.lake --out $(OUT) $(ARGS)

lint:  ## check style and types
	@$(QUIETLY) $(PYTHON) infra/bootstrap.py dev && \
		.venv/bin/ruff check . && \
		.venv/bin/ruff format --check . && \
		.venv/bin/mypy

clean:  ## remove .venv, caches and what the demo wrote
	@rm -rf .venv .millrace .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
