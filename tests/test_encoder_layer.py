"""encoder_layer: everything in encoder_testing.py, for one layer."""

from __future__ import annotations

import pytest

from encoder_testing import EncoderContract
from squeezebert_kernels import ops


class TestEncoderLayer(EncoderContract):
    operator = ops.encoder_layer
    layers = 1

    def test_number_of_params(self) -> None:
        given = self.arguments(3)
        with pytest.raises(ValueError, match="encoder_layer: params: expected 16 tensors, or one packed layer, got 15"):
            self.call({**given, "params": given["params"][:15]})
