"""What every test starts from: a fixed seed, and one thread (the thread count is put back afterwards)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

# So that their asserts show their operands.
pytest.register_assert_rewrite("exactness", "op_testing", "derivative_testing", "encoder_testing")


@pytest.fixture(autouse=True)
def _seed_and_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
