# bizlog's verbs; `make` alone explains them. Needs make and Python 3.11 or newer with
# venv and pip; whatever else a verb needs goes into a .venv folder of its own and is
# installed again only when pyproject.toml or the constraints change.

VERSIONS := 3.11 3.12 3.13

# $(call find,VERSIONS): the first of these Pythons that is there and can make a venv.
find = $(shell for version in $(1); do \
	for python in python$$version $(HOME)/.pyenv/versions/$$version.*/bin/python; do \
	"$$python" -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" \
	2>/dev/null && command -v "$$python" && exit; done; done)

# $(call venv,PYTHON,WHAT IS MISSING WITHOUT IT,ARGUMENTS OF PIP): in the stamp's folder.
define venv
@test -n "$(1)" || { echo "$(2)" >&2; exit 1; }
@test -x $(@D)/bin/python || { echo "creating $(@D)"; "$(1)" -m venv --clear $(@D); }
@$(@D)/bin/python -m pip install --quiet --quiet --disable-pip-version-check $(3)
@touch $@
endef

# $(call servers,CONSTRAINTS): what tests of Event Hubs and Kafka talk to.
define servers
@$(@D)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
	--editable '.[servers]' $(1) || { echo "$(NO_SERVERS)" >&2; \
	test -z "$$CI" || { rm -f $@; exit 1; }; }
endef

NO_SERVERS = the tests of Event Hubs and Kafka will skip: python-qpid-proton is built from \
	source, which needs a C compiler and the headers of Python and OpenSSL \
	(Debian, Ubuntu: apt-get install build-essential python3-dev libssl-dev), then make clean
NO_PYTHON = bizlog needs Python 3.11 or newer with venv and pip: \
	install one (Debian, Ubuntu: apt-get install python3-venv; macOS: brew install python), \
	or name yours: make PYTHON=/path/to/python3
NO_VERSION = Python 3.$* is not here: pyenv install 3.$*, or your system's package \
	(Debian, Ubuntu: python3.$*-venv)

# Most tests wait for others, so two processes beside each other take half the time. A
# file stays in one of them: what its tests share is started once.
BESIDE := --numprocesses 2 --dist loadfile

PYTHON ?= $(call find,3.13 3.12 3.11 3)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-lowest check bench faults clean $(VERSIONS:%=test-%)

help: ## Explain the verbs
	@echo "make VERB"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(MAKEFILE_LIST) | \
		awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo
	@echo "ARGS=... goes to pytest, to the benchmark or to the fault matrix, as in"
	@echo "  make test ARGS='tests/unit -k ledger'    (a part: one process, no coverage gate)"
	@echo "  make bench ARGS=--quick"
	@echo "  make faults ARGS='--only sigkill,hang --contender bizlog-journal'"

demo: .venv/.runtime ## Run the example shop: events in, files and ledger out
	@.venv/bin/python examples/shop/run.py $(ARGS)

test: .venv/.dev ## Run all tests and hold the coverage
ifdef ARGS
	.venv/bin/python -m pytest $(ARGS)
else
	.venv/bin/coverage erase
	COVERAGE_PROCESS_START=pyproject.toml .venv/bin/python -m pytest $(BESIDE)
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report
endif

test-all: $(VERSIONS:%=test-%) ## Run all tests on Python 3.11, 3.12 and 3.13

$(VERSIONS:%=test-%): test-%: .venv-%/.test
	.venv-$*/bin/python -m pytest $(BESIDE) $(ARGS)

test-lowest: .venv-lowest/.test ## Run unit and integration tests with the oldest dependencies
	.venv-lowest/bin/python -m pytest $(BESIDE) \
		$(or $(ARGS),$(wildcard tests/unit tests/integration))

check: .venv/.dev ## Lint, format, types (mypy and pyright, strict), layers
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/pyright
	.venv/bin/lint-imports

bench: .venv-bench/.bench ## Measure bizlog beside its peers; fails where a target is missed
	.venv-bench/bin/python tests/bench/bench.py $(ARGS)

faults: .venv-faults/.faults ## Put bizlog and its peers under faults; fails where bizlog misses
	.venv-faults/bin/python tests/faults/matrix.py $(ARGS)

clean: ## Delete the venvs, the caches and what was built
	rm -rf .venv .venv-* build dist .coverage .coverage.* .hypothesis .mypy_cache \
		.pytest_cache .ruff_cache .import_linter_cache
	find bizlog handlers examples tests -name __pycache__ -prune -exec rm -rf {} +

# Which Python `make test-3.X` takes; fails where there is none.
python-3.%:
	@test -n "$(call find,3.$*)" || { echo "$(NO_VERSION)" >&2; exit 1; }
	@echo "$(call find,3.$*)"

.venv/.runtime: pyproject.toml
	$(call venv,$(PYTHON),$(NO_PYTHON),--editable .)

.venv/.dev: .venv/.runtime constraints-dev.txt
	$(call venv,$(PYTHON),$(NO_PYTHON),--editable '.[dev]' --constraint constraints-dev.txt)
	$(call servers,--constraint constraints-dev.txt)

.venv-3.%/.test: pyproject.toml constraints-dev.txt
	$(call venv,$(call find,3.$*),$(NO_VERSION),--editable '.[test]' \
		--constraint constraints-dev.txt)
	$(call servers,--constraint constraints-dev.txt)

# 3.11 because the lowest versions have no wheels for later ones.
.venv-lowest/.test: pyproject.toml constraints-dev.txt constraints-lowest.txt
	$(call venv,$(call find,3.11),$(subst 3.$*,3.11,$(NO_VERSION)),--editable '.[test]' \
		--constraint constraints-dev.txt --constraint constraints-lowest.txt)
	$(call servers,--constraint constraints-dev.txt --constraint constraints-lowest.txt)

.venv-bench/.bench: pyproject.toml tests/bench/requirements.txt
	$(call venv,$(PYTHON),$(NO_PYTHON),--editable . --requirement tests/bench/requirements.txt)

.venv-faults/.faults: pyproject.toml tests/faults/requirements.txt
	$(call venv,$(PYTHON),$(NO_PYTHON),--editable . --requirement tests/faults/requirements.txt)
