# make up      set everything up and take the example from a push to a deployed release (ONCE=1: then stop)
# make test    set everything up and run all tests
# make env     only the environment: .venv, with .venv/bin/penstock
# make lock    write requirements.lock anew from pyproject.toml
# make golden  rewrite the golden files of the tests; read the diff
# make bench   measure Penstock beside its peers
.PHONY: up test env lock golden bench
SHELL := /bin/sh
READY := .venv/.ready

env: $(READY)

$(READY): requirements.lock pyproject.toml scripts/environment
	@scripts/environment

up: env
	@exec .venv/bin/penstock up $(if $(ONCE),--once)

test: env
	@scripts/test-packages
	@exec scripts/run-tests $(ARGS)

golden: env
	@PENSTOCK_GOLDEN=1 .venv/bin/python -m pytest -q -k golden

lock: env
	@.venv/bin/uv pip compile --quiet --python-version 3.11 --universal --all-extras --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header pyproject.toml -o requirements.lock

bench: env
	@.venv/bin/python bench/latency.py
	@.venv/bin/python bench/findings.py
	@.venv/bin/python bench/artifacts.py
	@.venv/bin/python bench/engine.py
