"""SqueezeBERT in plain PyTorch: the reference that the kernels are held against. Slow and obvious, needs only torch."""
