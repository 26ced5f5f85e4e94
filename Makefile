# SPDX-License-Identifier: Apache-2.0
# On a fresh Debian machine, as root: "make demo" shows it, "make test" proves it.

PYTHON ?= python3
export PYTHON

VENV := .venv
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check unit functional bench sample venv services clean

help:  ## what there is to make
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | sed 's/\t/            \t/; s/^\(.\{12\}\) *\t/  make \1/'

demo:  ## set up and run consoled-demo (its arguments: ARGS="...")
	@tools/setup-venv.sh run
	@tools/setup-pages.sh || echo 'Going on without the pages of the consoles.' >&2
	@$(VENV)/bin/consoled-demo $(ARGS)

test: venv services  ## style, types, unit and functional tests against real services
	@CONSOLED_REQUIRE_SERVICES=1 tools/run-tests.sh

check: venv  ## style and types only
	@tools/check.sh

unit: venv  ## unit tests only
	@tools/run-tests.sh --no-checks '^tests\.unit\.'

functional: venv services  ## functional tests only
	@CONSOLED_REQUIRE_SERVICES=1 tools/run-tests.sh --no-checks '^tests\.functional\.'

bench: venv services  ## benchmarks (their arguments: ARGS="...")
	@$(VENV)/bin/python -m tests.bench $(ARGS)

sample: venv  ## write etc/consoled/consoled.conf.sample anew
	@$(VENV)/bin/python tools/make_sample.py

venv:  ## the virtual environment .venv, with what the tests need
	@tools/setup-venv.sh test

services:  ## Debian's packages of the services that the tests run
	@tools/setup-services.sh

clean:  ## remove what this file made, but no Debian package
	rm -rf $(VENV) .stestr .tox .mypy_cache .ruff_cache .hypothesis build dist consoled.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
