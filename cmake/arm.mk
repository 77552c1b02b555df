# 64-bit Arm from an x86-64 Debian machine: cross-compiled, and run under QEMU. Included by the Makefile.
ARM_BUILD := build/aarch64
ARM_TOOLS := $(and $(shell command -v aarch64-linux-gnu-g++),$(shell command -v qemu-aarch64-static))
LLVM_MCA ?= $(firstword $(foreach v,22 21 20 19 18 17 16,$(shell command -v llvm-mca-$(v))) llvm-mca)

.PHONY: arm-build arm-test arm-analysis

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
	  QEMU_CPU=$$cpu ctest --test-dir $(ARM_BUILD) --output-on-failure --no-tests=error || exit 1; done

arm-analysis: arm-build  ## put the hot loops of the Arm kernels through llvm-mca (LLVM 16 or later)
	@command -v $(LLVM_MCA) > /dev/null || { echo "arm-analysis needs llvm-mca. On Debian: apt install llvm-19"; exit 1; }
	$(PYTHON) bench/arm_analysis.py $(ARM_BUILD) --mca $(LLVM_MCA)
