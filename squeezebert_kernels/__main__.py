"""`python -m squeezebert_kernels`: see `squeezebert_kernels.cli`."""

import sys

from squeezebert_kernels.cli import main

sys.exit(main())
