# 64-bit Arm from an x86-64 Debian machine: cross-compiled, and run under QEMU. Included by the Makefile.
ARM_BUILD := build/aarch64
ARM_TOOLS := $(and $(shell command -v aarch64-linux-gnu-g++),$(shell command -v qemu-aarch64-static))
LLVM_MCA ?= $(firstword $(foreach v,22 21 20 19 18 17 16,$(shell command -v llvm-mca-$(v))) llvm-mca)

ARM_ROOT := $(CURDIR)/build/arm64/root
ARM_SITE := $(CURDIR)/build/arm64/site
ARM_OWN := $(CURDIR)/build/arm64/own
ARM_PLATFORMS := manylinux_2_28_aarch64 manylinux_2_27_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64
# The oldest torch that we support, and what it and the tests import.
ARM_PACKAGES := torch==2.10.0 numpy==2.4.6 typing_extensions filelock sympy mpmath networkx jinja2 markupsafe fsspec \
  pytest==9.2.0 iniconfig packaging pluggy pygments
# The operators, the C API through NumPy, and packed weights. The whole suite takes hours under QEMU: ARM_TESTS=tests.
ARM_TESTS ?= $(addprefix tests/test_,native.py pack.py attention.py embedding_layer_norm.py grouped_conv1d.py \
  grouped_conv1x1.py grouped_conv1x1_gelu.py grouped_conv1x1_add_layer_norm.py grouped_ffn.py \
  grouped_qkv_attention.py encoder_layer.py encoder.py)
ARM_SMOKE ?= tests/test_native.py

.PHONY: arm-build arm-test arm-analysis arm-wheel arm-test-python arm-count

arm-build: export PATH := $(CURDIR)/$(BIN):$(PATH)
arm-build:
	@for tool in cmake aarch64-linux-gnu-g++ qemu-aarch64-static; do command -v $$tool > /dev/null || { \
	  echo "This needs $$tool. On Debian: apt install cmake g++-aarch64-linux-gnu qemu-user-static"; exit 1; }; done
	cmake -S . -B $(ARM_BUILD) -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DSQUEEZEBERT_BUILD_TESTS=ON \
	  -DSQUEEZEBERT_WERROR=$(WERROR)
	cmake --build $(ARM_BUILD)

# On the oldest core that we support, so that no newer instruction slips in, and on one that has everything.
arm-test: export PATH := $(CURDIR)/$(BIN):$(PATH)
arm-test: arm-build  ## cross-compile for 64-bit Arm, then run the C++ tests under QEMU
	for cpu in cortex-a53 max; do \
	  QEMU_CPU=$$cpu ctest --test-dir $(ARM_BUILD) --parallel 2 --output-on-failure --no-tests=error || exit 1; done

arm-analysis: arm-build  ## put the hot loops of the Arm kernels through llvm-mca (LLVM 16 or later)
	@command -v $(LLVM_MCA) > /dev/null || { echo "arm-analysis needs llvm-mca. On Debian: apt install llvm-19"; exit 1; }
	$(PYTHON) bench/arm_analysis.py $(ARM_BUILD)/lib/libsqueezebert.so --mca $(LLVM_MCA)

# Debian's arm64 Python with what it links, and aarch64 wheels: unpacked below build/, installed nowhere.
$(ARM_ROOT)/.unpacked: cmake/arm_root.sh
	cmake/arm_root.sh $(ARM_ROOT)
$(ARM_SITE)/.installed: $(INSTALLED) cmake/arm.mk
	$(BIN)/python -m pip install -q --upgrade --target $(ARM_SITE) $(addprefix --platform ,$(ARM_PLATFORMS)) \
	  --python-version 3.11 --only-binary=:all: --no-deps $(ARM_PACKAGES)
	touch $@

# The tag: the cross compiler's C library is Debian 12's, of which 2.34 is used, and its C++ library GCC 12's, as
# manylinux_2_35 has it.
arm-wheel: export PATH := $(CURDIR)/$(BIN):$(PATH)
arm-wheel: $(ARM_ROOT)/.unpacked $(ARM_SITE)/.installed  ## cross-compile the Python package: a wheel for manylinux aarch64
	rm -rf build/arm64/wheel $(ARM_OWN)
	_PYTHON_HOST_PLATFORM=linux-aarch64 SQUEEZEBERT_BUILD_DIR=$(CURDIR)/build/arm64/cmake \
	CMAKE_ARGS="-DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64-linux-gnu.cmake -DSQUEEZEBERT_TORCH_FOLDER=$(ARM_SITE)/torch \
	  -DPython_INCLUDE_DIR=$(ARM_ROOT)/usr/include/python3.11 -DCMAKE_CXX_FLAGS='-idirafter $(ARM_ROOT)/usr/include' \
	  -DPYTHON_MODULE_EXTENSION=.cpython-311-aarch64-linux-gnu.so" \
	  $(BIN)/python -m pip wheel -q --no-build-isolation --no-deps -w build/arm64/wheel . \
	  --config-settings=--build-option=--plat-name=manylinux_2_35_aarch64
	$(BIN)/python -m zipfile -e build/arm64/wheel/*.whl $(ARM_OWN)

# What a test must call as sys.executable: the kernel here cannot execute the aarch64 Python itself.
ARM_PYTHON := $(CURDIR)/build/arm64/python
$(ARM_PYTHON): $(ARM_ROOT)/.unpacked $(ARM_SITE)/.installed cmake/arm.mk
	printf '#!/bin/sh\nexec qemu-aarch64-static -L %s %s/usr/bin/python3.11 "$$@"\n' $(ARM_ROOT) $(ARM_ROOT) > $@
	chmod +x $@
	printf 'import sys\n\nsys.executable = "%s"\n' $@ > $(ARM_SITE)/sitecustomize.py

# The tests are copied, so that Python finds the wheel's package and not the source tree's. Inductor needs a compiler of
# its own machine.
ARM_PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(ARM_OWN):$(ARM_SITE) \
  $(ARM_PYTHON) -m pytest -q -p no:cacheprovider -o pythonpath= -k 'not inductor'
arm-test-python: arm-wheel $(ARM_PYTHON)  ## the operator tests in aarch64 Python, with aarch64 torch, under QEMU
	rm -rf build/arm64/run && mkdir build/arm64/run && cp -r tests build/arm64/run
	cd build/arm64/run && QEMU_CPU=cortex-a76 $(ARM_PYTEST) $(ARM_SMOKE)
	cd build/arm64/run && QEMU_CPU=max $(ARM_PYTEST) $(ARM_TESTS)

# On a core without SVE, so that everyone's vectors have 128 bits.
arm-count: arm-build  ## count the instructions that the Arm kernels execute for SqueezeBERT's encoder (QEMU plugin)
	@command -v qemu-aarch64 > /dev/null || { echo "arm-count needs qemu-aarch64. On Debian: apt install qemu-user"; exit 1; }
	$(CC) -Wall -Wextra -O2 -shared -fPIC -o $(ARM_BUILD)/arm_count.so bench/arm_count.c
	aarch64-linux-gnu-gcc -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -O2 -Icsrc/include -o $(ARM_BUILD)/arm_encoder \
	  bench/arm_encoder.c -L$(ARM_BUILD)/lib -lsqueezebert -Wl,-rpath,$(CURDIR)/$(ARM_BUILD)/lib
	qemu-aarch64 -cpu neoverse-n1 -L /usr/aarch64-linux-gnu -plugin $(ARM_BUILD)/arm_count.so $(ARM_BUILD)/arm_encoder
