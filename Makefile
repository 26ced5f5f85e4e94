# SPDX-License-Identifier: Apache-2.0
# On a fresh Debian machine, as root: "make demo" shows consoled at work, "make test" runs all tests.

PYTHON ?= python3
export PYTHON

VENV := .venv
ARGS ?=
NOVA ?= 34.0.0

.DEFAULT_GOAL := help
.PHONY: help demo test check unit functional e2e one nova pythons coverage durations hooks bench bench-proxy bench-hosts sample venv legacy services pages clean

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | sed 's/\t/            \t/; s/^\(.\{12\}\) *\t/  make \1/'

demo:  ## set up and run consoled-demo (its arguments: ARGS="...")
	@tools/setup-venv.sh run
	@tools/setup-pages.sh || echo 'Continuing without the console pages.' >&2
	@$(VENV)/bin/consoled-demo $(ARGS)

test: venv legacy services pages  ## check style and types, run all tests against the real services
	@CONSOLED_REQUIRE_SERVICES=1 tools/test-all.sh

check: venv  ## check style and types only
	@tools/check.sh

unit: venv  ## run the unit tests: no service is needed
	@tools/run-tests.sh '^tests\.unit\.'

functional: venv legacy services  ## run the functional tests
	@CONSOLED_REQUIRE_SERVICES=1 tools/run-tests.sh '^tests\.functional\.'

e2e: venv services pages  ## run the end-to-end tests: a real browser, real guests
	@CONSOLED_REQUIRE_SERVICES=1 tools/run-tests.sh '^tests\.e2e\.'

one: venv  ## run one test, class or module: T=tests.unit.test_sample
	@$(VENV)/bin/python -m testtools.run $(T)

nova: venv services pages  ## run the tests beside real releases of Nova: NOVA="34.0.0 33.0.2 27.5.1 25.3.0 19.3.2 18.3.0"
	@tools/test-nova.sh $(NOVA)

pythons: venv  ## test on the newest Python, and on the oldest with the oldest dependencies
	@tools/test-pythons.sh

coverage: venv legacy services pages  ## run all tests and report the branches that they cover
	@CONSOLED_REQUIRE_SERVICES=1 CONSOLED_COVERAGE=1 tools/run-tests.sh

durations: venv  ## record the times of the last run, to balance the workers by
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m tests.plan record

hooks: venv  ## let git run "make check" before each commit
	@$(VENV)/bin/pre-commit install

bench: venv services  ## run the benchmarks of the manager (their arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench $(ARGS)

bench-proxy: venv services  ## run the benchmarks of the proxy, beside websockify (their arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench.proxy $(ARGS)

bench-hosts: venv services  ## run the benchmark of a cell with a thousand compute hosts (its arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench.hosts $(ARGS)

sample: venv  ## regenerate etc/consoled/consoled.conf.sample
	@$(VENV)/bin/python tools/make_sample.py

venv:  ## create .venv, with what the tests need
	@tools/setup-venv.sh test

legacy: venv  ## create .venv-legacy, with the libraries of the old consoleauth service
	@tools/setup-legacy.sh

services:  ## install the Debian packages that the tests run
	@tools/setup-services.sh

pages:  ## install noVNC, spice-html5 and xterm.js for the console pages
	@tools/setup-pages.sh

clean:  ## remove what these targets made, except Debian packages
	rm -rf $(VENV) .venv-legacy .venv-nova-* .venv-newest .venv-lowest .stestr .coverage* .tox .mypy_cache .ruff_cache .hypothesis build dist consoled.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
