# Executed instructions, counted by a plugin of QEMU: this library's, and those of others in aarch64 Python. Included by
# arm.mk.
ARM_PEERS := $(ARM_PYTHON)/peers
ARM_COUNT = $(PYTHON) bench/arm_count.py $(ARM_BUILD)

.PHONY: arm-counter arm-count arm-count-peers

arm-counter: arm-build
	cmake/arm_tools.sh qemu-aarch64
	$(CC) -Wall -Wextra -O2 -shared -fPIC -o $(ARM_BUILD)/arm_count.so bench/arm_count.c
	aarch64-linux-gnu-gcc -std=c11 -D_GNU_SOURCE -Wall -Wextra -O2 -Icsrc/include -o $(ARM_BUILD)/arm_encoder \
	  bench/arm_encoder.c -L$(ARM_BUILD)/lib -lsqueezebert -Wl,-rpath,$(CURDIR)/$(ARM_BUILD)/lib

arm-count: arm-counter  ## count the instructions that the Arm kernels execute for SqueezeBERT's encoder, by part
	$(ARM_COUNT)

arm-count-peers: $(ARM_ROOT)/.unpacked $(ARM_SITE)/.installed $(ARM_PEERS)/.installed
arm-count-peers: arm-counter  ## the same beside PyTorch, ONNX Runtime and XNNPACK; slow
	$(ARM_COUNT) --peers $(ARM_ROOT)/usr/bin/python$(ARM_VERSION) --site $(ARM_PEERS):$(ARM_SITE) --graphs $(ARM_PEERS)/graphs

# ONNX Runtime's wheel, and the graphs for it.
$(ARM_PEERS)/.installed: $(INSTALLED) cmake/arm_count.mk bench/arm_peers.py
	rm -rf $(ARM_PEERS) && mkdir -p $(ARM_PEERS)/graphs
	$(ARM_PIP) --target $(ARM_PEERS) --no-deps onnxruntime==1.31.1 flatbuffers==25.12.19 protobuf==7.36.2
	$(BIN)/python bench/arm_peers.py export $(ARM_PEERS)/graphs
	touch $@
