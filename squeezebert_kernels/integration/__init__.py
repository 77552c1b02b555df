"""What happens when a model of transformers is optimized, in the order in which it happens.

optimize.py: the five functions that users call. architectures.py: which models, and where each keeps its modules.
reading.py: a model's weights and numbers, and that they stay what they were. binding.py: these in the operators' form,
and what is computed of them; self_test.py: that it is what the model computes. classes.py: the subclass whose forward
takes over; forward.py: that forward; request.py: what it can serve.

One folder up, shared with nn: packed.py, weights in the kernels' form, kept up to date; padding.py, which tokens are
real; opaque.py, a module as one operator of torch.compile.
"""
