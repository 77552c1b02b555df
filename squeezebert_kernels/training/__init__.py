"""What happens when a model of transformers is optimized for training, `optimize(model, training=True)`.

attach.py: which of its encoders run on the kernels, after each was compared with its own forward. encoder.py: the
subclass's forward of an encoder. reading.py: the layers' parameters and numbers, read anew at every call. padding.py:
which tokens are real.
"""
