# 64-bit Arm from an x86-64 Debian machine: cross-compiled, and run under QEMU. Included by the Makefile.
ARM_BUILD := build/aarch64
ARM_TOOLS := $(and $(shell command -v aarch64-linux-gnu-g++),$(shell command -v qemu-aarch64-static))
LLVM_MCA ?= $(firstword $(foreach v,22 21 20 19 18 17 16,$(shell command -v llvm-mca-$(v))) llvm-mca)

.PHONY: arm-build arm-test arm-test-cpp arm-analysis arm-count

include cmake/arm_python.mk

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
	@command -v $(LLVM_MCA) > /dev/null || { echo "arm-analysis needs llvm-mca. On Debian: apt install llvm-19"; exit 1; }
	$(PYTHON) bench/arm_analysis.py $(ARM_BUILD)/lib/libsqueezebert.so --mca $(LLVM_MCA)

# On a core without SVE, so that everyone's vectors have 128 bits.
arm-count: arm-build  ## count the instructions that the Arm kernels execute for SqueezeBERT's encoder (QEMU plugin)
	@command -v qemu-aarch64 > /dev/null || { echo "arm-count needs qemu-aarch64. On Debian: apt install qemu-user"; exit 1; }
	$(CC) -Wall -Wextra -O2 -shared -fPIC -o $(ARM_BUILD)/arm_count.so bench/arm_count.c
	aarch64-linux-gnu-gcc -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -O2 -Icsrc/include -o $(ARM_BUILD)/arm_encoder \
	  bench/arm_encoder.c -L$(ARM_BUILD)/lib -lsqueezebert -Wl,-rpath,$(CURDIR)/$(ARM_BUILD)/lib
	qemu-aarch64 -cpu neoverse-n1 -L /usr/aarch64-linux-gnu -plugin $(ARM_BUILD)/arm_count.so $(ARM_BUILD)/arm_encoder
