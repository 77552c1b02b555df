"""What models are built from: the kernels as modules, whole models, their checkpoints and tokenizers.

- `modules`: the kernels as nn.Modules. `models`: SqueezeBertModel and its five heads on the kernels.
- `plain`: the same architecture in plain PyTorch, which runs whatever the kernels do not serve.
- `config`, `activations`, `outputs`: what both share. `checkpoint`, `tokenizer`: what a checkpoint's folder holds.
"""
