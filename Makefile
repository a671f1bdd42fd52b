# `make` lists the targets. Everything is installed into .venv; nothing is fetched again until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_USE_PEP517 := 1
PORT ?= 9000
export SOURCE VOXEL_SIZE

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast nightly bench bench-serve bench-catalog screenshots clean components lint types tests tests-inside

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/installed ## Make, convert and serve a stack on 127.0.0.1:9000 (your own: SOURCE=DIR VOXEL_SIZE=X,Y,Z in µm)
	@$(BIN)/precomputed demo --port $(PORT) $(if $(SOURCE),--source "$$SOURCE") $(if $(VOXEL_SIZE),--voxel-size "$$VOXEL_SIZE")

test: $(VENV)/test-installed components ## Install what the tests need, then run lint, types and all tests but the nightly ones
	$(call tiers,lint types tests)

test-fast: $(VENV)/test-installed ## The same without outside programs, for the inner loop
	$(call tiers,lint types tests-inside)

nightly: $(VENV)/test-installed components ## All tests, those with big numbers included
	$(BIN)/pytest

bench: $(VENV)/test-installed components ## Serving, edits, exports, collections, progress, the catalog and conversion
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.edits
	$(BIN)/python -m benchmarks.exchange
	$(BIN)/python -m benchmarks.views
	$(BIN)/python -m benchmarks.progress
	$(BIN)/python -m benchmarks.catalog
	$(BIN)/python -m benchmarks.convert

bench-catalog: $(VENV)/test-installed ## The catalog of 20,000 datasets: to make, to go through again, to search, and the start page
	$(BIN)/python -m benchmarks.catalog

bench-serve: $(VENV)/test-installed components ## Serving alone: chunks, shards and old TIFFs against nginx, aiohttp and tifffile
	$(BIN)/python -m benchmarks.serve $(CASES)

screenshots: $(VENV)/test-installed components ## The pictures of the pages in docs/images
	$(BIN)/python -m tests.end_to_end.screenshots docs/images

clean: ## Remove the environment, caches and builds (not demo/)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The tiers of `make test`: each stops the run when it fails, and the time of each is printed at the end.
lint:
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types:
	$(BIN)/mypy

tests:
	$(BIN)/pytest -m "not nightly"

tests-inside:
	$(BIN)/pytest -m "not component and not nightly"

define tiers
	@report=; start=$$(date +%s); \
	for tier in $(1); do \
	    $(MAKE) --no-print-directory $$tier || { echo "$$tier failed$${report:+ after$$report}."; exit 1; }; \
	    now=$$(date +%s); report="$$report$${report:+,} $$tier $$((now - start)) s"; start=$$now; \
	done; \
	echo "All passed. Time:$$report."
endef

$(VENV)/created:
	@sh .ci/environment $(PYTHON) $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml
	@echo "Installing precomputed-server into $(VENV) …"
	@$(BIN)/pip install --quiet --editable '.[viewer]'
	@touch $@

# The tests' environment holds all that the demo needs: the one stamp stands for both.
$(VENV)/test-installed: $(VENV)/created pyproject.toml
	@echo "Installing precomputed-server and what its tests need into $(VENV) …"
	@$(BIN)/pip install --quiet --editable '.[test]'
	@touch $(VENV)/installed $@

components:
	@sh .ci/components
