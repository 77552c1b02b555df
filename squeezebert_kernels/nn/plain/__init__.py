"""The architecture in plain PyTorch, with Hugging Face's parameter names: the models' original path.

It serves what the kernels do not: dropout in training, attentions, hidden states, other activations and dtypes.
"""
