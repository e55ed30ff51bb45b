# Everything runs from .venv in this checkout; `make setup` makes it, and every other target calls that first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

# Debian packages that the tests need, as PACKAGE or PACKAGE:COMMAND.
TEST_TOOLS := chromium:chromium systemd:systemd-analyze prometheus:promtool prometheus-alertmanager:amtool \
              redis-server:redis-server

.PHONY: help setup tools server run demo test lint soak bench chaos fuzz grafana lock clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## /  make \1\t/p' Makefile | expand -t 16

setup:  ## create or update .venv (well under a second when there is nothing to do)
	@dev/setup.sh

tools:
	@dev/setup-tools.sh $(TEST_TOOLS)

server: setup
	@$(BIN)/python -m supervisor.livekit.dev_server

run: setup  ## the daemon in development mode, with a real LiveKit server; Ctrl-C ends it all
	@exec $(BIN)/livekit-supervisor run --dev

demo: setup  ## what goes wrong with LiveKit agents, and how it heals, in about a minute
	@exec $(BIN)/livekit-supervisor demo

test: setup tools server lint  ## lint, types, layers and every test, also on the real server (JOBS=2 at a time)
	@$(PYTEST) -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder

lint: setup  ## lint, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=agent $(BIN)/lint-imports --no-logo

soak: setup tools server  ## the scenarios of `make test` as often as it takes to trust them (40 minutes)
	@SUPERVISOR_SOAK=1 $(PYTEST) -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder -m soak -v -rP --durations=0

bench: setup server  ## measure: processes, claims, rooms, recovery, scrapes
	@$(BIN)/python -m tests.bench

chaos: setup server  ## random faults: MINUTES=10 on the real server, with a report, then STEPS=2000000 on its model
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report $(REPORT))
	@SUPERVISOR_SIMULATION_STEPS=$(or $(STEPS),2000000) $(PYTEST) tests/simulation/test_rooms_simulation.py -s --timeout=0

fuzz: setup  ## hostile input, guided by coverage, for MINUTES (default 5): configuration, webhooks, sockets
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),5)

grafana: setup  ## write alerts and dashboards anew from grafana/source (DOCS=URL: where their runbook is)
	@$(BIN)/python -m grafana.generate $(if $(DOCS),--docs $(DOCS))

lock:  ## write requirements/*.txt anew (UPGRADE=1: with newer versions); needs uv
	@dev/lock.sh

clean:  ## remove the environment, caches and what development runs left in this checkout
	rm -rf .venv .setup.lock .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist test-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
