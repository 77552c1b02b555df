"""`python -m squeezebert_kernels compare`: this library beside its peers, in one process, on the same text."""
