# `make help` lists the targets. A fresh machine needs two of them: `make lab` and `make test`.
.DEFAULT_GOAL := help
PROFILE ?= embedded
BIN := .venv/bin
RUN_ARGS ?=

.PHONY: help setup lab notebooks test test-more test-vm test-fast lint bench bench-cold bench-scale audit fetch reset clean book

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install missing system packages, and create .venv from the lock
	@PROFILE=$(PROFILE) tools/setup.sh

lab: setup ## build the lab and run its chapters (PROFILE=embedded)
	@$(BIN)/stackbook run --profile $(PROFILE) $(RUN_ARGS)

notebooks: setup ## serve JupyterLab on loopback with a token (LANG=zh: 中文版)
	@$(BIN)/stackbook notebooks $(if $(filter zh%,$(LANG)),--language zh)

lint: setup ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check lib tests
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file tests/mypy.ini tests/live/*.py

test-fast: setup ## lint, types, and the fast tests that need no lab
	@tools/test.sh fast

test: ## everything: lint, unit tests, the live lab, its chapters, faults, reset
	@STACKBOOK_BROWSER=1 STACKBOOK_BOOK=1 tools/setup.sh
	@tools/test.sh all

test-more: ## the long tests that CI does not run: a registry lab, a proxy, no network, other hosts, faults, planted causes
	@STACKBOOK_BROWSER=1 PROFILE=vm tools/setup.sh
	@PARTS="$(PARTS)" tools/test.sh more

test-vm: ## Kubernetes on virtual machines, which need this host for themselves: 20 minutes without KVM
	@PROFILE=vm tools/setup.sh
	@tools/test.sh vm

bench: setup ## compare the lab with the same steps by bare commands; writes bench/<time>.json and a plot
	@$(BIN)/python -m stackbook.app.benchmark

bench-cold: setup ## measure make lab with an empty cache, which takes half an hour or more; writes bench/<time>-cold.json
	@$(BIN)/python -m stackbook.app.cold_benchmark

bench-scale: setup ## labs with 2, 4 and 8 machines, then up to 200 pods in the mesh; half an hour; writes docs/scale.md
	@$(BIN)/python -m stackbook.app.scale

book: ## build a static site of the executed chapters, book/README.html
	@STACKBOOK_BOOK=1 tools/setup.sh
	@.venv-book/bin/python tools/book/build.py

audit: setup ## list known vulnerabilities of all dependencies; says so if their database cannot be reached
	@$(BIN)/python -m stackbook.app.audit

fetch: setup ## fetch or build every component ahead of a run
	@$(BIN)/stackbook fetch

reset: setup ## remove the lab, and compare this host with its state before
	@$(BIN)/stackbook reset --profile $(PROFILE)

clean: ## remove .venv and the records of runs; the lab and the cache stay
	rm -rf .venv .venv-book runs
