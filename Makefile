# Every target works on a fresh machine: it makes .venv first if that is missing.
PYTHON ?= python3
BIN := .venv/bin
# One more test process than cores, because some tests wait for processes of their own.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: run test test-all check docs bench clean

run: .venv
	$(BIN)/python -m cnnsens_bench.run
	$(BIN)/python -m leaderboard build --db runs/quick/results.duckdb --out runs/quick/site

test: .venv
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-all: .venv
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "slow or not slow"

check: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory docs

# Strict: a warning, such as a link to nothing, is an error. No network is needed.
docs: .venv
	$(BIN)/python -m sphinx -b html -d site/.doctrees -j auto -W --keep-going -q docs site/html

bench: .venv
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/degradations.py
	$(BIN)/python benchmarks/sensitivity.py
	$(BIN)/python benchmarks/budget.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/board.py
	$(BIN)/python benchmarks/scale.py

# Made anew when the dependencies change. The package imagecorruptions, whose code and photographs of ice the tests compare
# with, comes without its dependencies: it wants the OpenCV that needs a screen, in place of ours.
.venv: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'imagecorruptions>=1.1.2'
	touch .venv

clean:
	rm -rf .venv runs site .mypy_cache .ruff_cache .pytest_cache
