"""Options, and the one way every benchmark is checked, timed and described. See README.md beside this file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from backends import BACKENDS
from problems import Timed
from squeezebert_kernels import _native
from squeezebert_kernels.compare.precisions import DTYPES
from squeezebert_kernels.compare.timing import measure_peak
from tolerances import FORMAT_SHARES


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("squeezebert_kernels")
    group.addoption(
        "--impl",
        choices=("all", *BACKENDS),
        default="all",
        help="one implementation (the test ids do not say which, so that runs compare), or all of them side by side",
    )
    group.addoption(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="what this library's weights are packed as; the other implementations compute in float32",
    )
    group.addoption("--threads", type=int, default=1, help="threads to compute with (default: 1)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames and metafunc.config.getoption("--impl") == "all":
        metafunc.parametrize("backend", list(BACKENDS), indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses, before anything is timed, a --benchmark-compare-fail that would pass or fail for no reason."""
    benchmarks = session.config._benchmarksession  # type: ignore[attr-defined]
    if not benchmarks.compare_fail:
        return
    if not benchmarks.compared_mapping:
        raise pytest.UsageError(
            "--benchmark-compare-fail: expected a saved run to compare with (--benchmark-compare), got none"
        )
    here, now = session.config.getoption("--impl"), {item.nodeid for item in session.items}
    for path, saved in benchmarks.compared_mapping.items():
        there = sorted({benchmark["extra_info"]["impl"] for benchmark in saved.values()})
        # A run that was named is one that was meant.
        if benchmarks.compare is True and here != "all" and there != [here]:
            raise pytest.UsageError(
                f"--benchmark-compare-fail: expected the last saved run to be of --impl {here}, got {', '.join(there)} "
                f"in {path}; name the run to compare with (--benchmark-compare=0001)"
            )
        if now.isdisjoint(saved):
            raise pytest.UsageError(
                f"--benchmark-compare-fail: expected benchmarks in common with {path}, got none: it has "
                f"{next(iter(saved), 'nothing')}, this run has {min(now, default='nothing')}"
            )


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["isa"] = _native.active_isa()
    machine_info["threads"] = config.getoption("--threads")
    machine_info["torch"] = torch.__version__


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """The implementation to time: the parameter of this run, else the one that --impl names."""
    backend = BACKENDS[getattr(request, "param", None) or request.config.getoption("--impl")]
    if hasattr(backend, "use_dtype"):
        backend.use_dtype(request.config.getoption("--dtype"))
    return backend


@pytest.fixture(scope="session")
def peaks(pytestconfig: pytest.Config) -> Callable[[str], float]:
    """peaks(dtype): multiply-add peak of all threads together, GFLOP/s, measured when the first benchmark asks."""
    return functools.cache(lambda dtype: measure_peak(pytestconfig.getoption("--threads"), dtype))


@pytest.fixture(autouse=True)
def _seed_and_threads(pytestconfig: pytest.Config) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(pytestconfig.getoption("--threads"))
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(request: pytest.FixtureRequest, benchmark: Any, backend: ModuleType, peaks: Callable[[str], float]) -> Timed:
    """timed(run, expected, flops=, bytes=, bound=): checks what `run` gives, then times it.

    expected: float64, [N, S, C]; with `rows`, a mask [N, S] of the real tokens, those rows only. bound: largest
    absolute error allowed in float32; lower precisions have tolerances.FORMAT_SHARES. flops and bytes: of this
    implementation's own problem (the dense one has more of both), without padding; bytes counts weights, inputs and
    outputs once, in float32.
    """

    def check_and_time(
        run: Callable[[], Tensor],
        expected: Tensor,
        *,
        flops: int,
        bytes: int,
        bound: float,
        rows: Tensor | None = None,
    ) -> None:
        output = backend.tokens(run())
        errors = (output if rows is None else output[rows]).double() - expected
        error = errors.abs().max().item()
        assert output.isfinite().all()
        dtype = getattr(backend, "dtype", "float32")
        if dtype == "float32":
            assert error <= bound, f"largest error {error:.2e}, at most {bound:.2e} is allowed"
        else:
            share = (errors.square().mean() / expected.square().mean()).sqrt().item()
            allowed = FORMAT_SHARES[dtype]
            assert share <= allowed, f"the error is {share:.2e} of the result, at most {allowed:.2e} is allowed"
        benchmark.group = _group(request.node.name)
        benchmark.extra_info |= {
            "impl": next(name for name, module in BACKENDS.items() if module is backend),
            "dtype": dtype,
            "isa": _native.active_isa(),
            "threads": torch.get_num_threads(),
            "flops": flops,
            "bytes": bytes,
            "largest_error": error,
        }
        benchmark(run)
        if benchmark.stats is not None:
            gflops = flops / benchmark.stats.stats.median / 1e9
            benchmark.extra_info |= {"gflops": gflops, "percent_of_peak": 100 * gflops / peaks(dtype)}

    return check_and_time


def _group(name: str) -> str:
    """`bench_attention[dense-1x8]` -> `attention 1x8`: what the implementations, and runs of one, have in common."""
    operator, _, parameters = name.rstrip("]").partition("[")
    return " ".join(
        [operator.removeprefix("bench_"), *(word for word in parameters.split("-") if word not in BACKENDS)]
    )
