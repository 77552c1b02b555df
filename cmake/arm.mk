# 64-bit Arm from an x86-64 Debian machine: cross-compiled, and run under QEMU. Included by the Makefile.
ARM_BUILD := build/aarch64
ARM_TOOLS := $(and $(shell command -v aarch64-linux-gnu-g++),$(shell command -v qemu-aarch64-static))
LLVM_MCA ?= $(firstword $(foreach v,22 21 20 19 18 17 16,$(shell command -v llvm-mca-$(v))) llvm-mca-19)

.PHONY: arm-build arm-test arm-test-cpp arm-analysis

include cmake/arm_python.mk cmake/arm_count.mk

arm-test: $(INSTALLED) arm-test-cpp arm-test-python  ## all tests on 64-bit Arm under QEMU, once what that needs is installed; slow

arm-build: export PATH := $(CURDIR)/$(BIN):$(PATH)
arm-build:
	cmake/arm_tools.sh cmake aarch64-linux-gnu-g++ qemu-aarch64-static
	cmake -S . -B $(ARM_BUILD) -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DSQUEEZEBERT_BUILD_TESTS=ON \
	  -DSQUEEZEBERT_WERROR=$(WERROR)
	cmake --build $(ARM_BUILD)

# The oldest core that we support, so that no newer instruction slips in; one with half precision and dot products; and
# all that QEMU has.
ARM_CPUS ?= cortex-a53 cortex-a76 max
arm-test-cpp: export PATH := $(CURDIR)/$(BIN):$(PATH)
arm-test-cpp: arm-build  ## the C and C++ tests alone
	for cpu in $(ARM_CPUS); do \
	  QEMU_CPU=$$cpu ctest --test-dir $(ARM_BUILD) --parallel 2 --output-on-failure --no-tests=error || exit 1; done

arm-analysis: arm-build  ## put the hot loops of the Arm kernels through llvm-mca (LLVM 16 or later)
	cmake/arm_tools.sh $(LLVM_MCA)
	$(PYTHON) bench/arm_analysis.py $(ARM_BUILD)/lib/libsqueezebert.so --mca $(LLVM_MCA)
