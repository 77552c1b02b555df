# `make` lists the commands. Each sets up what it needs (.venv, build) the first time and is quick afterwards.
PYTHON ?= python3
WERROR ?= OFF
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUILT := build/.built
export SQUEEZEBERT_BUILD_DIR := $(CURDIR)/build/cmake
SOURCES := $(shell find csrc cmake tests/cpp -type f) CMakeLists.txt setup.py pyproject.toml
CXX_FILES = $(shell find csrc tests bench -name '*.h' -o -name '*.cc' -o -name '*.c' -o -name '*.inc')

.PHONY: help demo test test-versions test-hugging-face sanitize bench figures gpu-test gpu-bench gpu-compile gpu-tune lint format build clean
.DEFAULT_GOAL := help

include cmake/arm.mk cmake/avx512.mk

help:  ## list these commands
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-17s %s\n", $$1, $$2 }'

demo: $(BUILT)  ## build, then compare this library with its peers on this machine
	$(BIN)/python -m squeezebert_kernels compare $(ARGS)

# Of Arm, the C and C++ tests, where the tools are there already: it asks for no root, and the rest takes too long for CI.
test: $(BUILT)  ## build, then run the C and C++ tests (for Arm too, under QEMU) and the Python tests
	$(BIN)/ctest --test-dir $(SQUEEZEBERT_BUILD_DIR) --output-on-failure --no-tests=error
	$(if $(ARM_TOOLS),$(MAKE) arm-test-cpp,@echo "Not testing Arm: that needs the tools that make arm-test installs")
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/gpu $(ARGS)
	$(BIN)/python -m pytest tests $(ARGS)

# The library is the one that the pinned torch built: it is to run with every other. Downloads the newest versions whenever
# there are any. On x86 PyPI has only a torch 2.10 with CUDA: 7 GB of disk.
test-versions: $(BUILT)  ## the Python tests on the oldest and on the newest torch and transformers promised
	for versions in oldest newest; do \
	  folder=build/versions/$$versions; \
	  { test -x $$folder/bin/python || $(BIN)/python -m venv $$folder; } && \
	  $(BIN)/python tests/versions.py $$versions > $$folder/requirements.txt && \
	  $$folder/bin/python -m pip install -qq --upgrade --requirement $$folder/requirements.txt && \
	  $$folder/bin/python -m pytest tests --ignore=tests/gpu $(ARGS) || exit 1; done

# They are in its source distribution alone, of which nothing is built. Their marks are not ours: no --strict-markers.
test-hugging-face: $(BUILT)  ## transformers' own model tests: with optimized models as without
	version=$$($(BIN)/python -c 'import transformers; print(transformers.__version__)'); \
	folder=build/hugging_face/transformers-$$version; \
	test -d $$folder/parameterized || { mkdir -p $$folder && \
	$(BIN)/python -m pip download -qq --no-deps --no-binary transformers --dest build/hugging_face "transformers==$$version" && \
	tar -xzf $$folder.tar.gz -C build/hugging_face transformers-$$version/tests && \
	$(BIN)/python -m pip install -qq --target $$folder parameterized==0.9.0; } && \
	PYTHONPATH=$$folder $(BIN)/python -m pytest -o addopts=-ra -W ignore::pytest.PytestUnknownMarkWarning tests/test_hugging_face.py $(ARGS)

sanitize: export PATH := $(CURDIR)/$(BIN):$(PATH)
sanitize: $(INSTALLED)  ## the C++ tests with checks of addresses, undefined behaviour and threads
	for checks in address,undefined thread; do \
	  folder=build/sanitize-$${checks%%,*}; \
	  cmake -S . -B $$folder -G Ninja -DCMAKE_BUILD_TYPE=Debug -DSQUEEZEBERT_SANITIZE=$$checks \
	    -DSQUEEZEBERT_BUILD_TESTS=ON && \
	  cmake --build $$folder && ctest --test-dir $$folder --parallel 2 --output-on-failure --no-tests=error || exit 1; done

bench: $(BUILT)  ## build, then run the benchmarks (say, make bench ARGS="--impl torch")
	$(BIN)/python -m pytest bench $(ARGS)

figures: $(BUILT)  ## compare on this machine (keep it quiet), and put the table and the plot into README.md
	$(BIN)/python bench/update_readme.py $(ARGS)

# These four run in the Python that is at hand, with what is installed there, so that a machine without a network can. They
# need torch, triton, numpy, pytest and, for gpu-bench's usual peers and plot, transformers and matplotlib. The libraries are
# built first, in place, by CMake alone (and pybind11): setuptools may be missing there, or too old for pyproject.toml.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_BUILT := build/.gpu-built

gpu-test: $(GPU_BUILT)  ## on a GPU: test the Triton kernels there
	$(GPU_PYTHON) -m pytest tests/gpu $(ARGS)

gpu-bench: $(GPU_BUILT)  ## on a GPU: time the encoder beside its peers (ARGS=--quick for us alone), into out/
	$(GPU_PYTHON) -m bench.gpu.bench $(ARGS)

gpu-compile: $(GPU_BUILT)  ## no GPU needed: compile the Triton kernels for every GPU; bench/GPU.md says what came out
	$(GPU_PYTHON) -m bench.gpu.compile

gpu-tune: $(GPU_BUILT)  ## on a GPU: measure block sizes and rewrite its rows of the table
	$(GPU_PYTHON) -m bench.gpu.tune $(ARGS)

$(GPU_BUILT): $(SOURCES)
	python=$$($(GPU_PYTHON) -c 'import sys; print(sys.executable)'); export PATH="$$PATH:$$(dirname $$python)"; \
	cmake -S . -B build/gpu -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$$python \
	  -DSQUEEZEBERT_BUILD_PYTHON=ON -DSQUEEZEBERT_BUILD_TORCH=ON && \
	cmake --build build/gpu --parallel $(shell nproc) && \
	cmake --install build/gpu --component python --prefix $(CURDIR)/squeezebert_kernels
	touch $@

lint: $(INSTALLED)  ## ruff, clang-format and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrite the sources the way lint wants them
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

build: $(BUILT)  ## build the libraries and install the package into .venv, editable

clean:  ## remove everything that was built, and .venv
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .benchmarks
	rm -f squeezebert_kernels/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV): a minute or two, 2 GB of disk"
	$(BIN)/python -m pip install -qq --requirement requirements-dev.txt
	touch $@

$(BUILT): $(INSTALLED) $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" CMAKE_ARGS="-DSQUEEZEBERT_BUILD_TESTS=ON -DSQUEEZEBERT_WERROR=$(WERROR)" \
	  $(BIN)/python -m pip install -q --no-build-isolation --no-deps --editable .
	mkdir -p $(@D) && touch $@
