"""What happens when a model of transformers is optimized, in the order in which it happens.

optimize.py: the five functions that users call. architectures.py: which models, and where each keeps its modules.
reading.py: a model's weights and numbers, and watch.py: that they stay what they were. packed.py: the weights as the
kernels take them. binding.py and layers.py: what is computed of them; self_test.py: that it is what the model computes.
classes.py: the subclass whose forward takes over; forward.py: that forward; request.py: what it can serve; wanted.py:
what a head needs; padding.py: which tokens are real. compiled.py: all of this as one operator of torch.compile.
"""
