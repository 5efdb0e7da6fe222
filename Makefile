# `make demo` and `make test` install first; both need only make and a Python 3.11 to 3.13 with venv.

BIN := .venv/bin
STAMP := .venv/.installed
# make test ARGS='-k auditor'; make soak KILLS=5000 CUTS=0
ARGS ?=
KILLS ?= 10000
CUTS ?= 100
ENDURE_S ?= 7200
PG_KILLS ?= 20
COUNT ?= 200
SEED ?= 1

# Whole files go to whichever process is free, in the order that tests/conftest.py says.
TWO_AT_A_TIME := -n 2 --dist loadfile --no-loadscope-reorder

# Those that run in this process, and fast: what daemons of their own do is not seen. Both parts take about as long.
COVERAGE_1 := $(addprefix tests/integration/test_,$(addsuffix .py,copying duplicates recovery sidecars writer))
COVERAGE_2 := $(addprefix tests/unit/test_,$(addsuffix .py,beneath claiming companions copy_custody copying_files disk \
	explanations finishing locking output patience probing store)) \
	$(addprefix tests/integration/test_,$(addsuffix .py,ledger refiling returning staying tenure))

# The tests of the whole program, once more, each working folder with a database on a server. What asks for a database of
# each kind (the fixtures `db`, `migrated_url`) is left out: `make test` runs it on both. So is test_commands.py, whose
# folders have a file of SQLite there, too.
ON_POSTGRES := tests/pipeline $(addprefix tests/integration/test_,$(addsuffix .py,absence choosing_results \
	conservation copying duplicates fsck hostile_names odd_files operations reclassify reclassifying recovery refiling \
	reload sidecars staying swaps)) $(addprefix tests/crash/test_,$(addsuffix .py,kill pauses poison))

# The sums of the metrics do not depend on how files come into our hands: one way is enough there.
ONE_WAY := -k 'not (test_sum_holds and (hostile or copy))'

.PHONY: help install install-ray demo test test-postgres coverage coverage-1 coverage-2 mutants lint bench accuracy trust
.PHONY: soak endurance
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## .venv/ with both commands and all extras but gpu and ray; PYTHON=python3.12 chooses the Python

install-ray: .venv/.installed-ray ## Ray as well, for [engine] kind = "ray"

demo: $(STAMP) ## the main job on real pictures: trains, serves, sorts; look at demo/ afterwards
	$(BIN)/pigeonholed demo $(ARGS)

test: $(STAMP) ## all tests, two files at a time; ARGS='-k name' for some
	$(BIN)/python -m pytest $(TWO_AT_A_TIME) $(ARGS)

test-postgres: $(STAMP) ## the tests of the whole program on Postgres: on a server of their own, or PIGEONHOLED_TEST_POSTGRES=URL
	PIGEONHOLED_TEST_DATABASE=postgres PIGEONHOLED_TEST_KILLS=$(PG_KILLS) \
		$(BIN)/python -m pytest $(TWO_AT_A_TIME) $(ON_POSTGRES) $(ONE_WAY) $(ARGS)

coverage: $(STAMP) ## fails unless tests take every branch of the protocol's modules, which pyproject.toml names
	$(BIN)/python -m coverage erase
	$(MAKE) --jobs 2 --output-sync coverage-1 coverage-2
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

coverage-1 coverage-2:
	$(BIN)/python -m coverage run --parallel-mode -m pytest -q -m "not slow" $(COVERAGE_$(@:coverage-%=%))

mutants: $(STAMP) ## for an hour: how many changes of those modules the same tests see: COUNT=200 SEED=1
	$(BIN)/python tests/mutating.py --count $(COUNT) --seed $(SEED) $(COVERAGE_1) $(COVERAGE_2)

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## every benchmark: ours and the alternatives on the same work
	@set -e; for benchmark in benchmarks/bench_*.py; do \
		if [ -e "$$benchmark" ]; then echo "== $$benchmark"; $(BIN)/python "$$benchmark" $(ARGS); \
		else echo "no benchmark yet: benchmarks/ has no bench_*.py"; fi; \
	done

accuracy: $(STAMP) ## the recipes on real pictures, for hours: ARGS='--work DIR --only SET-RECIPE'
	$(BIN)/python benchmarks/accuracy.py $(ARGS)

trust: $(STAMP) ## whether confidences and thresholds keep what they promise: ARGS='--work DIR --only SET-RECIPE'
	$(BIN)/python benchmarks/trust.py $(ARGS)

soak: $(STAMP) ## for hours: kills at random and at every call, every error, power cuts (as root), bursts, the protocol's model, fuzzing: KILLS=10000 CUTS=100
	PIGEONHOLED_TEST_SOAK=1 PIGEONHOLED_TEST_KILLS=$(KILLS) PIGEONHOLED_TEST_CUTS=$(CUTS) \
		$(BIN)/python -m pytest -s --timeout 0 tests/crash tests/scale tests/protocol tests/fuzz $(ARGS)
	PIGEONHOLED_TEST_BUNDLE_FUZZ_S=600 $(BIN)/python -m pytest --timeout 0 tests/unit/test_bundle_fuzz.py $(ARGS)

endurance: $(STAMP) ## for two hours: load, a fault every ten seconds, and what grows: ENDURE_S=7200
	PIGEONHOLED_TEST_ENDURANCE_S=$(ENDURE_S) $(BIN)/python -m pytest -s tests/scale/test_endurance.py $(ARGS)

# Changed pins or metadata install again; changed code need not, the installation is editable.
# A PYTHON that was named is always looked at: the environment may have another.
$(STAMP): requirements.lock pyproject.toml .ci/install $(if $(PYTHON),FORCE)
	@PYTHON="$(PYTHON)" .ci/install
	@touch $@

.venv/.installed-ray: $(STAMP) requirements-ray.lock
	@.ci/install ray
	@touch $(STAMP) $@

.PHONY: FORCE
FORCE:
