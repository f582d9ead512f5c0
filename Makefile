# make demo    a picture in one command: no key, no database server, no configuration
# make serve   the production server on $PORT (8000 when unset), configured by the environment alone
# make worker  a worker of the queue that CELERY_BROKER_URL names (docs/scaling.md)
# make test    the tests; `make test-all` adds the slow ones, `make test-postgres` runs the others on PostgreSQL,
#                and `make test-mariadb` those that show how a database behaves on MariaDB
# make test-matrix  the tests on each Python and Django that the metadata promises, as far as this machine has them
# make chaos   300 requests while processes, broker, connections and disk go away: nothing may get lost. Five minutes
#                at most; needs Redis and a PostgreSQL server (TEST_POSTGRES_URL)
# make lint    style and types
# make bench   everything in benchmarks/README.md, 12 minutes; `make bench-quick` in under a minute
# make bench-million  the pages that count and list, with a million images: on SQLite, or ARGS=--postgresql

PYTHON ?= python3
# Options of your own: make test ARGS="-k health", make demo ARGS=--exit
ARGS ?=
TEST_WORKERS ?= 2
# Where tests may make databases and roles.
TEST_POSTGRES_URL ?= postgres://postgres@127.0.0.1:5432/postgres
TEST_MARIADB_URL ?= mysql://root@127.0.0.1:3306/trygo
# What reads and writes rows: everything else behaves alike on every database.
DATABASE_TESTS := tests/services tests/api tests/admin tests/management tests/project/test_health.py \
  tests/test_identities.py tests/test_storage.py tests/test_media.py tests/test_reconcile_command.py tests/test_import_images.py

VENV := .venv
BIN := $(VENV)/bin
SOURCES := images trygo_backend tests benchmarks manage.py noxfile.py
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo serve worker migrate test test-all test-postgres test-mariadb test-matrix chaos lint bench bench-quick bench-million

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.runtime
	@$(BIN)/python -m trygo_backend.demo $(ARGS)

serve: $(VENV)/.runtime
	@exec $(BIN)/python -m trygo_backend.server $(ARGS)

worker: $(VENV)/.scaling
	@exec $(BIN)/python -m trygo_backend.worker $(ARGS)

migrate: $(VENV)/.runtime
	@$(BIN)/python manage.py migrate $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile -m "not slow" $(ARGS)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile $(ARGS)

test-postgres: $(VENV)/.dev
	TEST_DATABASE_URL=$(TEST_POSTGRES_URL) $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile -m "not slow" $(ARGS)

test-mariadb: $(VENV)/.dev
	TEST_DATABASE_URL=$(TEST_MARIADB_URL) $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile -m "not slow" $(DATABASE_TESTS) $(ARGS)

test-matrix: $(VENV)/.dev
	TEST_WORKERS=$(TEST_WORKERS) $(BIN)/nox $(ARGS)

chaos: $(VENV)/.dev
	@TEST_POSTGRES_URL=$(TEST_POSTGRES_URL) $(BIN)/python -m tests.chaos $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(SOURCES)

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(ARGS)

bench-million: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.million $(ARGS)

bench-quick: $(VENV)/.dev
	@$(BIN)/python -m benchmarks --quick $(ARGS)

# The environment is made once and brought up to date when the requirements change. Each stamp is written last, so that
# an installation that broke off is done again.

$(VENV)/.runtime: requirements.txt $(VENV)/.made
	@echo "Installing what the server needs ..."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.scaling: requirements-scaling.txt $(VENV)/.runtime
	@echo "Installing what the queue, shared storage and metrics need ..."
	@$(PIP_INSTALL) -r requirements-scaling.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.scaling
	@echo "Installing what the tests need ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) is not installed. On Debian: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed. Name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@
