"""The implementations that --impl chooses from: modules with the same functions.

Each has the operators that the benchmarks call, with the arguments of `squeezebert_kernels.ops` (one sequence length,
no mask, no packed batches unless `encoder` says so), and around them

groups(count): the number of groups it computes with; 1 in the dense network.
weight(plain, groups): a plain weight [out, in / groups] as it wants it, made once.
use_dtype(name), dtype: where it has number formats; the others compute in float32.
layout(tokens): activations [N, S, C] as it wants them; tokens(output): its output back as [N, S, C].
"""

from types import ModuleType

from . import dense, squeezebert, torch_grouped

BACKENDS: dict[str, ModuleType] = {"dense": dense, "torch": torch_grouped, "squeezebert": squeezebert}
