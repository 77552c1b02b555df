"""The operators in plain PyTorch: the oracle that the kernels are held against. Slow and obvious; not installed.

It may import the package, which never imports it. Models have no second implementation here: their oracle is
transformers.
"""
