# The AVX-512 kernels on a machine without AVX-512: the C and C++ tests on a CPU that Bochs emulates. bench/EMULATION.md says
# more. Included by the Makefile.
AVX512_ROOT := build/avx512/root
# Regular expressions over the tests' names, as for ctest -R and -E. `memory` computes at BERT's size, for hours there.
AVX512_TESTS ?= .
AVX512_LEFT_OUT ?= ^memory$$

.PHONY: avx512-test

# Bochs since version 3.0, which Debian has since trixie; the kernel and the tools to start it from a disk.
$(AVX512_ROOT)/.unpacked: cmake/avx512.mk cmake/debian_root.sh
	cmake/debian_root.sh $(CURDIR)/$(AVX512_ROOT) amd64 trixie bochs bochs-term busybox-static genisoimage isolinux \
	  syslinux-common linux-image-cloud-amd64

avx512-test: $(BUILT) $(AVX512_ROOT)/.unpacked  ## the C and C++ tests on an emulated CPU with AVX-512; slow
	cmake/bochs.sh $(AVX512_ROOT) build/avx512/run $(SQUEEZEBERT_BUILD_DIR)/lib/libsqueezebert_plugin.so \
	  $$($(BIN)/ctest --test-dir $(SQUEEZEBERT_BUILD_DIR) -N -V -R '$(AVX512_TESTS)' -E '$(AVX512_LEFT_OUT)' | \
	     sed -n 's|.*Test command: \(/.*/bin/test_[^ ]*\)$$|\1|p')
