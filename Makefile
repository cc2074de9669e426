# Every target sets up what it needs in .venv by itself.
#   make demo [ONCE=1] [PORT=8000]   train, export, calibrate, serve the digits
#   make test                        unit to integration tests, the real server process included
#   make check                       ruff, mypy --strict, import-linter
#   make fmt                         format and fix
#   make e2e                         tests that drive a browser and other outside programs
#   make soak                        long runs, by hand
#   make bench-methods [JOBS=2]      the tables of methods and scores, cached and resumable
#   make bench-training              what a step of each method costs
# Options: PYTHON=python3.12   TORCH_INDEX=https://download.pytorch.org/whl/cpu (torch without CUDA)

# Inherited, this would make every process of the demo and the tests compile torch anew.
unexport PYTHONDONTWRITEBYTECODE
# Threads that wait for each other must not spin: on a shared machine they would keep the one that
# is late from running. The tests' models are too small for a second thread to pay.
export OMP_WAIT_POLICY = PASSIVE
test e2e soak: export OMP_NUM_THREADS = 1

PYTHON ?= python3
PORT ?= 8000
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime-gpu where there is a GPU, onnxruntime elsewhere; never both.
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
INDEX := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.PHONY: demo test check fmt e2e soak bench bench-methods bench-training clean

demo: $(VENV)/runtime
	$(BIN)/python -m demo --port $(PORT) $(if $(ONCE),--once)

test: $(VENV)/dev
	$(BIN)/python -m pytest -m "not e2e and not soak" $(ARGS)

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

e2e: $(VENV)/dev
	$(BIN)/python -m pytest -m e2e $(ARGS)

soak: $(VENV)/dev
	$(BIN)/python -m pytest -m soak $(ARGS)

bench: bench-methods bench-training

bench-methods: $(VENV)/dev
	test -d data/digits || $(BIN)/python -m train data digits --to data/digits
	test -d data/plumage || $(BIN)/python -m train data plumage --to data/plumage
	$(BIN)/python -m benchmarks.methods train/presets/plumage_methods.toml --jobs $(JOBS)
	$(BIN)/python -m benchmarks.methods train/presets/digits_methods.toml --jobs $(JOBS)

bench-training: $(VENV)/dev
	$(BIN)/python -m benchmarks.training_step --write

$(VENV)/runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(INDEX) torch==2.13.0
	$(PIP) --editable ".[$(RUNTIME),server,train,export]"
	touch $@

$(VENV)/dev: $(VENV)/runtime
	$(PIP) --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) data runs models calibrations build .pytest_cache .mypy_cache .ruff_cache
