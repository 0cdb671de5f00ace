# What a newcomer needs; each target makes the virtual environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# One thread a worker: two workers with two threads each wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help env demo test test-slow test-gpu gpu check format bench docs clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

env: $(VENV)/.ready  ## the virtual environment with everything pinned, PyTorch 2.13.0 first

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: env        ## train a DNA model on E. coli and score it on held-out bases, into runs/demo
	rm -rf runs/demo
	$(BIN)/longwave train dna --out runs/demo

test: env        ## all tests but the slow ones and those that need a GPU
	$(PYTEST)

test-slow: env   ## the tests that take minutes each
	$(PYTEST) -m slow

test-gpu: env    ## every test of the kernels and of the operators on a CUDA device, and under compute-sanitizer where installed
	$(BIN)/longwave gpu --minutes 120 --only kernels device values sanitizer random

gpu: env         ## on a CUDA device, in half an hour: the tests there, then bench and tune; logs and results in runs/gpu
	$(BIN)/longwave gpu

check: env       ## format, lint and types; edits nothing
	$(BIN)/ruff format --check --diff .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: env      ## rewrite the files in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: env       ## time long_conv against torch.fft, scipy.fft and ducc0; keep the stamped result
	$(BIN)/longwave bench --save

docs: env        ## make docs/numerics.md, frequency_masks.md (from the model of make demo) and results.md (from kept runs) anew
	$(BIN)/longwave numerics --out docs/numerics.md
	$(BIN)/longwave sparsify runs/demo --tune 200 --page docs/frequency_masks.md
	$(BIN)/longwave results --out docs/results.md

clean:           ## remove the virtual environment and every cache; runs/ stays
	rm -rf $(VENV) .hypothesis .pytest_cache .ruff_cache .mypy_cache dist
