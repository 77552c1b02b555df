"""Tools for the Triton kernels: `make gpu-compile`, `make gpu-tune` and `make gpu-bench`."""
