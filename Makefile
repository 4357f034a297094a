# make demo   trains the embedded model on two CPU cores; prints scores and the path of pictures, before and after
# make test   runs the tests
# make lint   runs ruff and mypy
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint

demo: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m project fit --config configs/shapes/demo.yaml --trainer.devices 2 --trainer.strategy ddp
	$(BIN)/python -m project results

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
