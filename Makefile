# SPDX-License-Identifier: Apache-2.0
# On a fresh Debian machine, as root: "make demo" shows it, "make test" proves it.

PYTHON ?= python3
export PYTHON

VENV := .venv
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check unit functional e2e one pythons coverage durations hooks bench bench-proxy bench-hosts sample venv legacy services pages clean

help:  ## what there is to make
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | sed 's/\t/            \t/; s/^\(.\{12\}\) *\t/  make \1/'

demo:  ## set up and run consoled-demo (its arguments: ARGS="...")
	@tools/setup-venv.sh run
	@tools/setup-pages.sh || echo 'Going on without the pages of the consoles.' >&2
	@$(VENV)/bin/consoled-demo $(ARGS)

test: venv legacy services pages  ## style, types, unit, functional and end-to-end tests against the real things
	@CONSOLED_REQUIRE_SERVICES=1 tools/test-all.sh

check: venv  ## style and types only
	@tools/check.sh

unit: venv  ## unit tests only: no service is needed
	@tools/run-tests.sh '^tests\.unit\.'

functional: venv legacy services  ## functional tests only
	@CONSOLED_REQUIRE_SERVICES=1 tools/run-tests.sh '^tests\.functional\.'

e2e: venv services pages  ## end-to-end tests only: a real browser, real guests
	@CONSOLED_REQUIRE_SERVICES=1 tools/run-tests.sh '^tests\.e2e\.'

one: venv  ## one test, class or module: T=tests.unit.test_sample
	@$(VENV)/bin/python -m testtools.run $(T)

pythons: venv  ## unit tests on the newest Python, and on the oldest with the oldest dependencies
	@tools/test-pythons.sh

coverage: venv legacy services pages  ## all tests, with the branches that they cover
	@CONSOLED_REQUIRE_SERVICES=1 CONSOLED_COVERAGE=1 tools/run-tests.sh

durations: venv  ## record the times of the last run, by which the workers are balanced
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m tests.plan record

hooks: venv  ## let git run the checks of "make check" before each commit
	@$(VENV)/bin/pre-commit install

bench: venv services  ## benchmarks of the manager (their arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench $(ARGS)

bench-proxy: venv services  ## benchmarks of the proxy, beside websockify (their arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench.proxy $(ARGS)

bench-hosts: venv services  ## a cell with a thousand compute hosts (its arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench.hosts $(ARGS)

sample: venv  ## write etc/consoled/consoled.conf.sample anew
	@$(VENV)/bin/python tools/make_sample.py

venv:  ## the virtual environment .venv, with what the tests need
	@tools/setup-venv.sh test

legacy: venv  ## another one, .venv-legacy, with the libraries of the old consoleauth service
	@tools/setup-legacy.sh

services:  ## Debian's packages of what the tests run
	@tools/setup-services.sh

pages:  ## noVNC, spice-html5 and xterm.js, that the console pages are made of
	@tools/setup-pages.sh

clean:  ## remove what this file made, but no Debian package
	rm -rf $(VENV) .venv-legacy .venv-newest .venv-lowest .stestr .coverage* .tox .mypy_cache .ruff_cache .hypothesis build dist consoled.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
