"""The NumPy entry points against the same formulas in float64 NumPy, and what they say about wrong arguments."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import squeezebert_kernels
from numpy_formulas import EPS, Layer, Linear, attend, conv1d, floats, gelu, layer_norm
from squeezebert_kernels import numpy as kernels
from tolerances import FORMAT_SHARES, MULTIPLY_NARROW, float32_bound, narrow_weights_bound, size_of


def assert_near(got: np.ndarray, exact: np.ndarray, *reduction_lengths: int) -> None:
    assert got.dtype == np.float32
    assert got.shape == exact.shape
    bound = float32_bound(*reduction_lengths, size=size_of(exact))
    np.testing.assert_allclose(got, exact, rtol=0, atol=bound)


@pytest.fixture(params=kernels.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    kernels.force_isa(request.param)
    yield request.param
    kernels.force_isa(None)


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_version_is_that_of_the_package() -> None:
    assert kernels.version() == squeezebert_kernels.__version__


def test_isas_end_with_scalar_and_can_be_forced(isa: str) -> None:
    assert kernels.isas()[-1] == "scalar"
    assert kernels.active_isa() == isa


def test_unknown_isa_is_refused_by_name() -> None:
    before = kernels.active_isa()
    with pytest.raises(RuntimeError, match=r'scalar.*got "sve9"'):
        kernels.force_isa("sve9")
    assert kernels.active_isa() == before


def test_products_are_forced_by_name() -> None:
    weight, x = np.round(floats(36, 6, scale=0.3) * 64) / np.float32(64), floats(7, 24)
    expected = kernels.grouped_conv1x1(x, kernels.pack(weight, groups=4))
    try:
        for name in kernels.products():
            kernels.force_product(name)
            assert kernels.active_product(name.split("_")[0]) == name
            packed = kernels.pack(weight, groups=4, dtype=name.split("_")[0])
            got = kernels.grouped_conv1x1(x, packed)
            # float32 products of values that every format but int8 holds.
            assert name in MULTIPLY_NARROW or name.startswith("int8_") or np.array_equal(got, expected)
        with pytest.raises(RuntimeError, match=r'product: expected a product .*float32_scalar.*got "float32_sve"'):
            kernels.force_product("float32_sve")
    finally:
        kernels.force_product(None)
    assert kernels.active_product().startswith(f"float32_{kernels.active_isa()}")


def test_formats(isa: str) -> None:
    assert kernels.formats()[:3] == ["float32", "float16", "bfloat16"]
    for name in kernels.formats():
        assert kernels.active_product(name).startswith(f"{name}_{isa}")
    with pytest.raises(ValueError, match=r"format: expected one of float32, float16, bfloat16.*, got float64"):
        kernels.active_product("float64")


def test_float16_weights() -> None:
    weight, x = floats(36, 6, scale=0.3), floats(7, 24)
    packed = kernels.pack(weight.astype(np.float16), groups=4)
    assert packed.dtype == "float16"
    assert "dtype=float16" in repr(packed)
    assert kernels.pack(weight, groups=4).dtype == "float32"
    exact = conv1d(x, weight.astype(np.float16).astype(np.float32)[:, :, None], np.zeros(36, np.float32), 4)
    got = kernels.grouped_conv1x1(x, packed)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, rtol=0, atol=narrow_weights_bound(kernels.active_product("float16"), 6))
    assert np.array_equal(kernels.grouped_conv1x1(x, kernels.pack(np.asfortranarray(weight, np.float16), 4)), got)
    assert np.array_equal(kernels.grouped_conv1x1(x, kernels.pack(weight, 4, dtype="float16")), got)


def test_bfloat16_weights() -> None:
    weight, x = floats(36, 6, scale=0.3), floats(7, 24)
    packed = kernels.pack(weight, 4, dtype="bfloat16")
    assert packed.dtype == "bfloat16"
    assert packed.nbytes == kernels.pack(weight, 4, dtype="float16").nbytes
    # To nearest, ties to even, in float64: a step is the 2^-7 of a power of two.
    steps = 2.0 ** (np.floor(np.log2(np.abs(weight.astype(np.float64)))) - 7)
    exact = conv1d(x, (np.round(weight / steps) * steps).astype(np.float32)[:, :, None], np.zeros(36, np.float32), 4)
    got, bound = kernels.grouped_conv1x1(x, packed), narrow_weights_bound(kernels.active_product("bfloat16"), 6)
    np.testing.assert_allclose(got, exact, rtol=0, atol=bound)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_int8_weights(isa: str, kernel_size: int) -> None:
    """The bits are test_int8.py's business; here, that these are the same functions, and what unpacking gives."""
    weight, x = floats(36, 6, kernel_size, scale=0.3), floats(7, 24)
    packed = kernels.pack(weight, 4, dtype="int8")
    assert packed.dtype == "int8"
    values, scale = kernels.quantize_weight(weight)
    assert values.dtype == np.int8
    assert scale.dtype == np.float32
    assert values.shape == weight.shape
    assert scale.shape == (36, 1, kernel_size)
    assert np.array_equal(scale, np.abs(weight).max(1, keepdims=True) / np.float32(127))
    assert np.array_equal(values, np.rint(weight * (np.float32(127) / np.abs(weight).max(1, keepdims=True))))
    again = kernels.pack_quantized(np.asfortranarray(values), scale, 4)
    got = kernels.grouped_conv1d(x, packed)
    assert np.array_equal(kernels.grouped_conv1d(x, again), got)
    assert np.array_equal(kernels.unpack(packed), values * scale)
    for unpacked, given in zip(kernels.unpack_quantized(again), (values, scale), strict=True):
        assert np.array_equal(unpacked, given)
    exact = conv1d(x, weight, np.zeros(36, np.float32), 4)
    assert 0.0 < np.sqrt(np.mean((got - exact) ** 2)) < FORMAT_SHARES["int8"] * size_of(exact)
    assert np.array_equal(kernels.quantize_weight(weight[..., 0])[0], values[..., 0])
    assert np.array_equal(kernels.unpack(kernels.pack(weight, 4)), weight)


def test_peak_is_a_rate() -> None:
    assert kernels.measure_peak(0.01) > 0
    assert kernels.measure_peak(0.01, "float16") > 0
    with pytest.raises(ValueError, match="seconds"):
        kernels.measure_peak(-1.0)
    with pytest.raises(ValueError, match="format: expected "):
        kernels.measure_peak(0.01, "int4")


def test_thread_count_changes_no_bit() -> None:
    layer, x = Layer(seed=1), floats(3, 40, 24)
    before = kernels.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 4):
            kernels.set_num_threads(threads)
            assert kernels.get_num_threads() == threads
            outputs.append(kernels.encoder(x, layer.params, 4))
    finally:
        kernels.set_num_threads(before)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_python_threads_compute_at_the_same_time() -> None:
    layer, x = Layer(seed=1), floats(2, 17, 24)
    expected = kernels.encoder(x, layer.params, 4)
    wrong: list[int] = []

    def compute(worker: int) -> None:
        for _ in range(20):
            if not np.array_equal(kernels.encoder(x, layer.params, 4), expected):
                wrong.append(worker)

    threads = [threading.Thread(target=compute, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_is_given_back() -> None:
    layer, x = Layer(seed=1), floats(3, 40, 24)
    expected = kernels.encoder(x, layer.params, 4)
    assert kernels.release_memory() > 0
    assert kernels.release_memory() == 0
    np.testing.assert_array_equal(kernels.encoder(x, layer.params, 4), expected)
    assert kernels.release_memory() > 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_threads_by_default_are_the_cpus_this_process_may_use() -> None:
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from squeezebert_kernels import numpy
        print(numpy.get_num_threads())
    """
    assert fresh_process(code).stdout == "1\n"


def fresh_process(code: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SQUEEZEBERT_FORCE_ISA"}
    if isa is not None:
        environment["SQUEEZEBERT_FORCE_ISA"] = isa
    root = str(Path(__file__).parent.parent)
    code = textwrap.dedent(code)
    if "SQUEEZEBERT_TESTS_WITHOUT_TORCH" in environment:
        code = f"import sys; sys.modules['torch'] = None\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=120, check=False)


def test_packed_weights_copy_and_pickle(isa: str) -> None:
    """For the instruction set in use; under another one they are refused by name, and so are foreign bytes."""
    for weight in (floats(24, 8, seed=1), floats(24, 8, 3, seed=2), floats(24, 8, seed=3).astype(np.float16)):
        packed, x = kernels.pack(weight, groups=2), floats(5, 16, seed=4)
        expected = kernels.grouped_conv1d(x, packed)
        for twin in (copy.copy(packed), copy.deepcopy([packed])[0], pickle.loads(pickle.dumps(packed))):
            assert repr(twin) == repr(packed)
            assert twin.nbytes == packed.nbytes
            assert np.array_equal(kernels.grouped_conv1d(x, twin), expected)
    state, product = pickle.dumps(packed), kernels.active_product("float16")
    for other in set(kernels.isas()) - {isa}:
        kernels.force_isa(other)
        here = kernels.active_product("float16")
        with pytest.raises(ValueError, match=f"expected a weight packed for {here}, got one for {product}"):
            pickle.loads(state)
    for foreign in (b"", b"x" * 4096):
        with pytest.raises(ValueError, match="expected a packed weight, got"):
            kernels.PackedWeight.__new__(kernels.PackedWeight).__setstate__(foreign)


def test_the_environment_forces_an_isa() -> None:
    code = "from squeezebert_kernels import numpy as kernels; print(kernels.active_isa())"
    for isa in kernels.isas():
        assert fresh_process(code, isa).stdout.strip() == isa
    assert fresh_process(code).stdout.strip() == kernels.isas()[0]


def test_an_isa_in_the_environment_that_cannot_be_used_stops_every_call() -> None:
    code = """
        import numpy
        from squeezebert_kernels import numpy as kernels
        for call in (kernels.active_isa, kernels.measure_peak, lambda: kernels.pack(numpy.ones((4, 4), "float32"))):
            try:
                call()
            except RuntimeError as error:
                print(error)
    """
    done = fresh_process(code, "sve9")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert "SQUEEZEBERT_FORCE_ISA" in line
        assert "sve9" in line
        assert kernels.isas()[0] in line


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes() -> None:
    code = """
        import os, warnings
        import numpy
        from squeezebert_kernels import numpy as kernels
        warnings.simplefilter("ignore")  # Python 3.12 and later advise against fork beside threads
        kernels.set_num_threads(2)
        weight = kernels.pack(numpy.ones((64, 16), "float32"), groups=4)
        x = numpy.arange(64 * 64, dtype="float32").reshape(64, 64)
        before = kernels.grouped_conv1x1(x, weight)
        child = os.fork()
        same = numpy.array_equal(kernels.grouped_conv1x1(x, weight), before)
        if child == 0:
            os._exit(0 if same else 1)
        print(same, os.waitpid(child, 0)[1])
    """
    done = fresh_process(code)
    assert done.stdout.split() == ["True", "0"], done.stderr


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_conv1x1(isa: str, groups: int) -> None:
    linear, x = Linear(36, 20, groups, seed=1), floats(2, 9, 20)
    assert_near(kernels.grouped_conv1x1(x, linear.packed, linear.bias), linear(x), 20 // groups)
    assert_near(kernels.grouped_conv1x1(x, linear.packed), linear(x) - linear.bias, 20 // groups)
    assert_near(kernels.grouped_conv1x1_gelu(x, linear.packed, linear.bias), gelu(linear(x)), 20 // groups)


def test_grouped_conv1x1_add_layer_norm(isa: str) -> None:
    linear, x, residual = Linear(36, 20, 2, seed=1), floats(2, 9, 20), floats(2, 9, 36)
    weight, bias = floats(36, seed=3), floats(36, seed=4)
    got = kernels.grouped_conv1x1_add_layer_norm(x, linear.packed, linear.bias, residual, weight, bias, EPS)
    assert_near(got, layer_norm(linear(x) + residual, weight, bias), 10, 36)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_grouped_conv1d(isa: str, kernel_size: int) -> None:
    weight, bias = floats(12, 4, kernel_size, scale=0.3), floats(12)
    packed = kernels.pack(weight, groups=2)
    assert (packed.out_channels, packed.in_channels, packed.groups, packed.kernel_size) == (12, 8, 2, kernel_size)
    x = floats(3, 7, 8)
    exact = np.stack([conv1d(row, weight, bias, 2) for row in x])
    assert_near(kernels.grouped_conv1d(x, packed, bias), exact, 4 * kernel_size)
    assert_near(kernels.grouped_conv1d(x[0], packed, bias), exact[0], 4 * kernel_size)
    offsets = np.array([0, 5, 5, 21], np.int32)
    tokens = x.reshape(21, 8)
    exact = np.concatenate([conv1d(tokens[:5], weight, bias, 2), conv1d(tokens[5:], weight, bias, 2)])
    assert_near(kernels.grouped_conv1d(tokens, packed, bias, cu_seqlens=offsets), exact, 4 * kernel_size)


def test_attention(isa: str) -> None:
    q, k, v = floats(2, 5, 24), floats(2, 9, 24, seed=1), floats(2, 9, 24, seed=2)
    assert_near(kernels.attention(q, k, v, 3), attend(q, k, v, 3), 8, 9)
    assert_near(kernels.attention(q[0], k[0], v[0], 3), attend(q, k, v, 3)[0], 8, 9)
    doubled = kernels.attention(q, k, v, 3, scale=2 / math.sqrt(8))
    assert_near(doubled, attend(2 * q, k, v, 3), 8, 9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_attention_of_lower_precision(dtype: str) -> None:
    q, k, v = floats(2, 5, 24), floats(2, 9, 24, seed=1), floats(2, 9, 24, seed=2)
    got = kernels.attention(q, k, v, 3, dtype=dtype)
    bound = narrow_weights_bound(kernels.active_product(dtype), 8, 9, attentions=1)
    np.testing.assert_allclose(got, attend(q, k, v, 3), rtol=0, atol=bound)
    assert not np.array_equal(got, kernels.attention(q, k, v, 3))
    layer, x = Layer(seed=1), floats(2, 9, 24)
    linears = (layer.query, layer.key, layer.value)
    arguments = [p for linear in linears for p in (linear.packed, linear.bias)]
    projections = [kernels.grouped_conv1x1(x, linear.packed, linear.bias) for linear in linears]
    got = kernels.grouped_qkv_attention(x, *arguments, 4, attention_dtype=dtype)
    assert np.array_equal(got, kernels.attention(*projections, 4, dtype=dtype))


@pytest.mark.parametrize("shape", [(9,), (5, 9), (2, 1, 1, 9), (3, 5, 9), (2, 3, 5, 9), (2, 3, 5, 1)])
def test_attention_masks(shape: tuple[int, ...]) -> None:
    q, k, v = floats(2, 5, 24), floats(2, 9, 24, seed=1), floats(2, 9, 24, seed=2)
    mask = floats(*shape, seed=5)
    assert_near(kernels.attention(q, k, v, 3, mask=mask), attend(q, k, v, 3, mask), 8, 9)
    keep = mask > 0
    lowest = np.where(keep, 0.0, np.finfo(np.float32).min)
    exact = attend(q, k, v, 3, lowest)
    # Rows without any True are uniform, whatever float64 would make of the sum of the lowest float and a score.
    nothing = ~np.broadcast_to(keep, (2, 3, 5, 9)).any(-1)
    mean = v.astype(np.float64).reshape(2, 9, 3, 8).mean(1)
    uniform = np.where(nothing.transpose(0, 2, 1)[..., None], mean[:, None], exact.reshape(2, 5, 3, 8))
    assert_near(kernels.attention(q, k, v, 3, mask=keep), uniform.reshape(2, 5, 24), 8, 9)


def test_grouped_qkv_attention(isa: str) -> None:
    layer, x = Layer(seed=1), floats(2, 9, 24)
    linears = (layer.query, layer.key, layer.value)
    exact = attend(*(linear(x) for linear in linears), 4)
    arguments = [p for linear in linears for p in (linear.packed, linear.bias)]
    assert_near(kernels.grouped_qkv_attention(x, *arguments, 4), exact, 6, 6, 9)
    packed = kernels.grouped_qkv_attention(x.reshape(18, 24), *arguments, 4, cu_seqlens=np.array([0, 9, 18], np.int32))
    assert_near(packed, exact.reshape(18, 24), 6, 6, 9)


def test_grouped_ffn(isa: str) -> None:
    layer, x = Layer(seed=1), floats(2, 9, 24)
    exact = layer_norm(layer.output(gelu(layer.intermediate(x))) + x, *layer.norms[1])
    got = kernels.grouped_ffn(
        x,
        layer.intermediate.packed,
        layer.intermediate.bias,
        layer.output.packed,
        layer.output.bias,
        *layer.norms[1],
        EPS,
    )
    assert_near(got, exact, 6, 12, 24)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_embedding_layer_norm(isa: str, dtype: type) -> None:
    word, position, kind = floats(30, 24), floats(9, 24, seed=1), floats(2, 24, seed=2)
    weight, bias = floats(24, seed=3), floats(24, seed=4)
    ids = np.random.default_rng(0).integers(0, 30, (2, 7)).astype(dtype)
    got = kernels.embedding_layer_norm(ids, None, None, word, position, kind, weight, bias, EPS)
    assert_near(got, layer_norm(word[ids].astype(np.float64) + position[:7] + kind[0], weight, bias), 24)
    types, places = np.array([[0], [1]], dtype), np.arange(7, 0, -1).astype(dtype)
    got = kernels.embedding_layer_norm(ids, types, places, word, position, kind, weight, bias, EPS)
    assert_near(got, layer_norm(word[ids].astype(np.float64) + position[places] + kind[types], weight, bias), 24)


def test_encoder(isa: str) -> None:
    layers, x = [Layer(seed=1), Layer(seed=100)], floats(2, 9, 24)
    params = [p for layer in layers for p in layer.params]
    lengths = 2 * [6, 6, 9, 24, 24, 6, 12, 24]
    exact = layers[1](layers[0](x))
    assert_near(kernels.encoder(x, params, 4, EPS), exact, *lengths)
    first = kernels.encoder(x, params, 4, EPS, first_token_only=True)
    assert_near(first, exact[:, 0], *lengths)
    mask = np.where(np.arange(9) < [[9], [4]], 0, np.finfo(np.float32).min).astype(np.float32)[:, None, None]
    masked = kernels.encoder(x, params, 4, EPS, mask=mask)
    assert_near(masked, layers[1](layers[0](x, mask), mask), *lengths)
    tokens = np.concatenate([x[0], x[1, :4]])
    packed = kernels.encoder(tokens, params, 4, EPS, cu_seqlens=np.array([0, 9, 13], np.int32))
    assert_near(packed, np.concatenate([masked[0], masked[1, :4]]), *lengths)


# ---- layouts ---------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows of a wider array": lambda x: np.pad(x, ((0, 0), (0, 0), (0, 5)))[..., :24],
    "every second token": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "sequences last": lambda x: np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
    "channels first": lambda x: np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1),
    "backwards": lambda x: np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "Fortran order": np.asfortranarray,
    "one byte off": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
    "read only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str) -> None:
    layer, x = Layer(seed=1), floats(2, 9, 24)
    strided = LAYOUTS[layout](x)
    np.testing.assert_array_equal(strided, x)
    np.testing.assert_array_equal(kernels.encoder(strided, layer.params, 4), kernels.encoder(x, layer.params, 4))


def test_broadcast_rows() -> None:
    linear, row = Linear(24, 24, 4, seed=1), floats(24)
    got = kernels.grouped_conv1x1(np.broadcast_to(row, (3, 5, 24)), linear.packed, linear.bias)
    np.testing.assert_array_equal(got, np.tile(kernels.grouped_conv1x1(row, linear.packed, linear.bias), (3, 5, 1)))


def test_nothing_to_compute() -> None:
    layer = Layer(seed=1)
    assert kernels.encoder(floats(0, 9, 24), layer.params, 4).shape == (0, 9, 24)
    assert kernels.encoder(floats(2, 0, 24), layer.params, 4).shape == (2, 0, 24)


def test_sizes_past_int32() -> None:
    """Broadcast arrays of more elements than there is memory: refused, at once, or taken as they are."""
    layer = Layer(seed=1)
    far = np.broadcast_to(np.float32(1.0), (2**31, 24))
    with pytest.raises(ValueError, match=r"input: expected fewer than 2\^31 tokens, got float32 \[2147483648, 24\]"):
        kernels.grouped_conv1x1(far, layer.query.packed)
    with pytest.raises(ValueError, match=r"input: expected fewer than 2\^31 tokens, got 1 sequences of 2147483648"):
        kernels.encoder(far, layer.params, 4)
    ids = np.broadcast_to(np.int64(0), 2**31)
    table, vector = floats(9, 24), floats(24)
    with pytest.raises(ValueError, match=r"input_ids: expected fewer than 2\^31 tokens"):
        kernels.embedding_layer_norm(ids, None, None, table, table, table, vector, vector)
    huge = np.broadcast_to(np.float32(1.0), (2**44, 24))  # more than there are addresses
    with pytest.raises(MemoryError, match=r"no memory for a contiguous copy of float32 \[17592186044416, 24\]"):
        kernels.embedding_layer_norm(ids[:1], None, None, huge, table, table, vector, vector)
    with pytest.raises(MemoryError):
        kernels.pack(np.broadcast_to(np.float32(1.0), (2**29, 2**23)))


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_errors_name_the_argument() -> None:
    layer, x = Layer(seed=1), floats(2, 9, 24)
    linear, bad = layer.query, kernels.pack(floats(8, 8))
    offsets = np.array([0, 20, 18], np.int32)
    ids, table, vector = np.zeros(4, np.int64), floats(9, 24), floats(24)
    params = layer.params
    cases: list[tuple[str, Callable[[], object]]] = [
        ("weight: expected one of float32, .*, got float64", lambda: kernels.pack(np.zeros((4, 4)))),
        ("dtype: expected one of float32, .*, got float8", lambda: kernels.pack(floats(4, 4), dtype="float8")),
        (r"weight: expected floating-point.*int8 \[4, 4\]", lambda: kernels.pack(np.zeros((4, 4), "i1"), 1, "float32")),
        (r"weight: expected \[out_channels", lambda: kernels.pack(floats(4))),
        ("dtype: expected one of float32, .*, got float8", lambda: kernels.attention(x, x, x, 4, dtype="float8")),
        (
            "attention_dtype: expected one of float32, .*, got float8",
            lambda: kernels.grouped_qkv_attention(x, *params[:6], 4, attention_dtype="float8"),
        ),
        (r"weight: expected floating-point.*int8 \[4, 4\]", lambda: kernels.pack(np.zeros((4, 4), "i1"))),
        (r"weight: expected floating-point.*int8 \[4, 4\]", lambda: kernels.quantize_weight(np.zeros((4, 4), "i1"))),
        (r"weight: expected \[out_channels", lambda: kernels.quantize_weight(floats(4))),
        ("values: expected an int8 array", lambda: kernels.pack_quantized(floats(4, 4), floats(4, 1))),
        (
            r"scale: expected float32 \[4, 1\] beside values int8 \[4, 8\], got float32 \[4\]",
            lambda: kernels.pack_quantized(np.zeros((4, 8), "i1"), floats(4)),
        ),
        ("weight: expected one packed as int8, got one packed as float32", lambda: kernels.unpack_quantized(bad)),
        ("groups: expected a number that divides 24", lambda: kernels.pack(floats(24, 8), 5)),
        ("groups", lambda: kernels.pack(floats(24, 8), 0)),
        ("kernel_size", lambda: kernels.pack(floats(24, 8, 2))),
        (r"input: .*float64 \[2, 24\]", lambda: kernels.grouped_conv1x1(np.zeros((2, 24)), linear.packed)),
        ("weight: .*24 input channels, got one for 8", lambda: kernels.grouped_conv1x1(x, bad)),
        (r"bias: .*\[24\].*\[23\]", lambda: kernels.grouped_conv1x1(x, linear.packed, floats(23))),
        ("num_heads: .*divides 24.*got 5", lambda: kernels.attention(x, x, x, 5)),
        ("num_heads", lambda: kernels.encoder(x, params, 0)),
        ("key: ", lambda: kernels.attention(x, x[:1], x[:1], 4)),
        ("value: ", lambda: kernels.attention(x, x, x[:, :3], 4)),
        (r"mask: .*\(2, 4, 9, 9\).*\[5\]", lambda: kernels.encoder(x, params, 4, mask=floats(5))),
        ("mask: .*int64", lambda: kernels.encoder(x, params, 4, mask=np.zeros(9, np.int64))),
        ("cu_seqlens: .*never decrease", lambda: kernels.encoder(x[0], params, 4, cu_seqlens=offsets)),
        ("cu_seqlens: .*int32", lambda: kernels.encoder(x[0], params, 4, cu_seqlens=offsets.astype(np.int64))),
        (
            "cu_seqlens: .*the 9 tokens of input, got 0",
            lambda: kernels.encoder(x[0], params, 4, cu_seqlens=offsets[:1]),
        ),
        ("threads: expected 1 to 4096, got 0", lambda: kernels.set_num_threads(0)),
        ("threads: expected 1 to 4096, got 4097", lambda: kernels.set_num_threads(4097)),
        ("params: expected 16", lambda: kernels.encoder(x, params[:15], 4)),
        ("params: expected 16", lambda: kernels.encoder(x, [], 4)),
        (r"params\[0\]: expected a PackedWeight", lambda: kernels.encoder(x, [linear.weight, *params[1:]], 4)),
        (r"params\[8\]: .*\[24\]", lambda: kernels.encoder(x, [*params[:8], floats(23), *params[9:]], 4)),
        (
            "input_ids",
            lambda: kernels.embedding_layer_norm(ids + 9, None, None, table, table, table, vector, vector),
        ),
        (
            "position_ids",
            lambda: kernels.embedding_layer_norm(ids, None, ids - 1, table, table, table, vector, vector),
        ),
        (
            "token_type_ids: expected integers",
            lambda: kernels.embedding_layer_norm(ids, vector, None, table, table, table, vector, vector),
        ),
    ]
    for match, call in cases:
        with pytest.raises(ValueError, match=match):
            call()


def test_more_tokens_than_offsets_can_count_are_refused() -> None:
    weight = kernels.pack(floats(1, 1, 3))
    many = np.broadcast_to(np.float32(0), (2**16, 2**16, 1))  # takes no memory
    with pytest.raises(ValueError, match=r"input: expected fewer than 2\^31 tokens"):
        kernels.grouped_conv1d(many, weight)


def test_a_list_is_not_an_array() -> None:
    with pytest.raises(TypeError):
        kernels.grouped_conv1x1([1.0], kernels.pack(floats(1, 1)))  # type: ignore[arg-type]


@pytest.mark.skipif(len(kernels.isas()) < 2, reason="this CPU runs the scalar kernels only")
def test_a_pack_of_another_isa_is_refused() -> None:
    linear, x = Linear(24, 24, 4, seed=1), floats(3, 24)
    kernels.force_isa("scalar")
    try:
        with pytest.raises(ValueError, match="scalar"):
            kernels.grouped_conv1x1(x, linear.packed)
    finally:
        kernels.force_isa(None)
