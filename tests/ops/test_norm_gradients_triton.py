"""norm_gradients in Triton: on a GPU if there is one, else by the interpreter; and what it compiles to."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from compiled_kernels import TARGETS, Kernel, compile_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import SETTINGS
from test_norm_gradients import LAYOUTS, assert_as_formula, make_pair
from torch import Tensor
from triton_device import DEVICE, EXAMPLES

from imbdyn.ops import NormGradients
from imbdyn.ops.norm_gradients.portable import norm_gradients_portable, norm_gradients_rows_portable
from imbdyn.ops.norm_gradients.reference import norm_gradients_reference, norm_gradients_rows_reference
from imbdyn.ops.norm_gradients.triton import norm_gradients_rows_triton, norm_gradients_triton
from imbdyn.ops.norm_gradients.triton_plan import (
    MOST_COLUMNS,
    STAGES,
    channels_config,
    places_config,
    plan_channels,
    plan_rows,
    rows_config,
)

# Few examples on a GPU, too: nearly each of them is compiled for itself there.

# NumPy, by which the interpreter computes, warns of what the formula gives as well: NaN of infinities
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = (1, 2, 3, 15, 16, 17, 33, 64, 65, 130)


@pytest.fixture(params=["whole units", "parts"])
def division(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Few programs, or units divided into as many parts as can be."""
    few = 0 if request.param == "whole units" else 1 << 20
    monkeypatch.setattr(sys.modules[plan_rows.__module__], "FEW_PROGRAMS", few)
    for plan in (plan_channels, plan_rows):
        plan.cache_clear()
    yield str(request.param)
    for plan in (plan_channels, plan_rows):
        plan.cache_clear()


def by_channels(
    x: Tensor, dy: Tensor, groups: int, across: bool, mean: Tensor | None = None, variance: Tensor | None = None
) -> NormGradients:
    """Return what the kernels give; the strides of x and dy are kept on their way to the GPU."""
    statistics = [None if t is None else t.to(DEVICE) for t in (mean, variance)]
    found = norm_gradients_triton(_on_device(x), _on_device(dy), groups, across, *statistics, 1e-5)
    return NormGradients(*(t.cpu() for t in found))


def by_rows(x: Tensor, dy: Tensor, centred: bool) -> NormGradients:
    found = norm_gradients_rows_triton(_on_device(x), _on_device(dy), centred, 1e-5)
    return NormGradients(*(t.cpu() for t in found))


def _on_device(t: Tensor) -> Tensor:
    if DEVICE == "cpu":
        return t
    moved = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=DEVICE)
    return t.to(DEVICE).expand(t.shape) if 0 in t.stride() else moved.copy_(t)


def check_channels(
    x: Tensor, dy: Tensor, groups: int, across: bool, mean: Tensor | None = None, variance: Tensor | None = None
) -> None:
    plain = NormGradients(*norm_gradients_portable(x, dy, groups, across, mean, variance, 1e-5))
    oracle = NormGradients(*norm_gradients_reference(x, dy, groups, across, mean, variance, 1e-5))
    assert_as_formula(by_channels(x, dy, groups, across, mean, variance), x, dy, oracle, plain, over=2)


def check_rows(x: Tensor, dy: Tensor, centred: bool) -> None:
    plain = NormGradients(*norm_gradients_rows_portable(x, dy, centred, 1e-5))
    oracle = NormGradients(*norm_gradients_rows_reference(x, dy, centred, 1e-5))
    assert_as_formula(by_rows(x, dy, centred), x, dy, oracle, plain, over=1)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    shape = (draw(st.sampled_from((0, 1, 2, 5))), draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES)))
    dtypes = (draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES)))
    layouts = (draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS)))
    return make_pair(shape, dtypes, layouts, seed=draw(st.integers(0, 1000)))


@pytest.mark.usefixtures("division")
@settings(SETTINGS, max_examples=min(EXAMPLES, 25))
@given(pairs(), st.booleans(), st.data())
def test_channels_match_reference(pair: tuple[Tensor, Tensor], across: bool, data: st.DataObject) -> None:
    x, dy = pair
    channels = x.shape[1]
    check_channels(x, dy, data.draw(st.sampled_from([g for g in (1, 3, channels) if channels % g == 0])), across)


@pytest.mark.usefixtures("division")
@settings(SETTINGS, max_examples=min(EXAMPLES, 25))
@given(pairs())
def test_channels_with_given_statistics_match_reference(pair: tuple[Tensor, Tensor]) -> None:
    x, dy = pair
    check_channels(x, dy, 1, False, torch.randn(x.shape[1]), torch.rand(x.shape[1]) + 0.5)


@pytest.mark.usefixtures("division")
@settings(SETTINGS, max_examples=min(EXAMPLES, 25))
@given(pairs(), st.booleans())
def test_rows_match_reference(pair: tuple[Tensor, Tensor], centred: bool) -> None:
    check_rows(*pair, centred)


@pytest.mark.usefixtures("division")
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_places_and_columns_than_a_block(layout: str, dtype: torch.dtype) -> None:
    for shape in ((2, 3, 2100), (1, 130, 70)):
        x, dy = make_pair(shape, (dtype, dtype), (layout, layout))
        check_channels(x, dy, shape[1], True)
        check_channels(x, dy, 1, False)
        check_rows(x, dy, True)


def test_statistics_of_many_units_are_joined() -> None:
    x, dy = make_pair((150, 40, 3), mean=3)
    check_channels(x, dy, 40, True)


@pytest.mark.usefixtures("division")
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("size", [64, 1500])
def test_large_mean_keeps_digits(size: int, layout: str) -> None:
    x, dy = make_pair((3, 4, size), layouts=(layout, layout), mean=1e4)
    for across, groups in ((True, 4), (False, 4), (False, 2)):
        got = by_channels(x, dy, groups, across).weight
        oracle = norm_gradients_reference(x, dy, groups, across, None, None, 1e-5)[0]
        # as in test_norm_gradients.py: what is left are float32 sums
        torch.testing.assert_close(got.double(), oracle, rtol=0, atol=2e-7 * size)
    got = by_rows(x, dy, True).weight
    torch.testing.assert_close(got.double(), norm_gradients_rows_reference(x, dy, True, 1e-5)[0], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("division")
@pytest.mark.parametrize("place", [0, 70])
def test_what_is_not_finite_stays_in_its_statistics(place: int) -> None:
    x, dy = make_pair((3, 4, 80))
    for value in (torch.nan, torch.inf):
        x[1, 2, place] = value
        for t, d in ((x, dy), (x.mT.contiguous().mT, dy.mT.contiguous().mT)):
            of_batch = by_channels(t, d, 4, True)
            assert of_batch.weight[:, 2].isnan().all()
            assert of_batch.weight[:, [0, 1, 3]].isfinite().all()
            assert of_batch.bias.isfinite().all()
            assert by_channels(t, d, 4, False).weight.isnan().nonzero().tolist() == [[1, 2]]
        assert by_rows(x, dy, True).weight.isnan().nonzero().tolist() == [[1, j] for j in range(80)]


def test_float64_and_wide_rows_come_from_plain_torch() -> None:
    x, dy = make_pair((2, 3, 5), (torch.float64, torch.float32))
    check_channels(x, dy, 3, True)
    check_rows(x, dy, True)
    check_rows(*make_pair((1, 2, MOST_COLUMNS + 1)), True)


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
def test_without_elements_sums_are_zero(shape: tuple[int, int, int]) -> None:
    x = torch.zeros(shape)
    for across in (True, False):
        for sums in by_channels(x, x, 1, across):
            assert torch.equal(sums, torch.zeros(shape[:2]))


@pytest.mark.usefixtures("division")
@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter has one order")
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_results_are_the_same_bits_every_time(layout: str) -> None:
    x, dy = make_pair((64, 100, 300), layouts=(layout, layout))
    for repeated in (lambda: by_channels(x, dy, 100, True), lambda: by_rows(x, dy, True)):
        first = repeated()
        assert all(torch.equal(a, b) for _ in range(10) for a, b in zip(repeated(), first, strict=True))


KERNELS = "imbdyn.ops.norm_gradients.triton"
SHARED = 72 << 10  # what the warps of a program tell each other, and blocks that are on their way
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def channel_kernel(
    name: str, tile: tuple[int, int, int], dtype: torch.dtype, mode: str, align: int, *, long: bool = True
) -> Kernel:
    channels, places, warps = tile
    element = f"*{TYPES[dtype]}"
    pointers = {"x": element, "dy": element, "weight": "*fp32", "bias": "*fp32"}
    other = {"kept": "*fp32"} if mode in ("joined", "given, part") else {}
    other |= dict.fromkeys(("mean", "variance"), "*fp32") if mode.startswith("given") else {}
    lengths = ("units", "channels", "places", "of_part")
    strides = [f"{t}_{of}" for t in ("x", "dy") for of in ("unit", "channel", "place")]
    along = "place" if name == "places_along" else "channel"
    constants: dict[str, object] = {"CHANNELS": channels, "PLACES": places, "ALIGN": align, "MODE": mode}
    constants |= {"LONG": long, "STAGES": STAGES}
    constants |= {f"x_{along}": 1, f"dy_{along}": 1}
    constants |= dict.fromkeys({"kept", "mean", "variance"} - other.keys())
    numbers = dict.fromkeys((*lengths, *strides), "i32") | {"eps": "fp32"}
    signature = pointers | other | numbers
    return Kernel(f"{KERNELS}_kernels:{name}", signature, constants, {"num_warps": warps}, tuple(pointers))


def row_kernel(columns: int, dtype: torch.dtype) -> Kernel:
    rows, block, warps = rows_config(columns)
    element = f"*{TYPES[dtype]}"
    pointers = {"x": element, "dy": element, "weight": "*fp32", "bias": "*fp32", "kept": "*fp32"}
    numbers = ("units", "rows", "columns", "of_part", "x_unit", "x_row", "dy_unit", "dy_row")
    constants: dict[str, object] = {"x_column": 1, "dy_column": 1, "CENTRED": True}
    constants |= {"ROWS": rows, "COLUMNS": block, "ALIGN": 16 // dtype.itemsize}
    constants["STAGES"] = STAGES if block < 4096 else 2
    signature = pointers | dict.fromkeys(numbers, "i32") | {"eps": "fp32"}
    return Kernel(f"{KERNELS}_rows:whole_rows", signature, constants, {"num_warps": warps}, tuple(pointers))


def join_kernels() -> list[Kernel]:
    pointers = dict.fromkeys(("weight", "bias", "kept"), "*fp32")
    shared = pointers | dict.fromkeys(("units", "channels", "parts", "of_part", "places"), "i32") | {"eps": "fp32"}
    tiles = [{"READ": 128, "WRITTEN": written, "CHANNELS": 8} for written in (16, 128)]
    return [
        *(
            Kernel(f"{KERNELS}_join:join_across_units", shared | {"of_program": "i32"}, t, {"num_warps": 4})
            for t in tiles
        ),
        Kernel(f"{KERNELS}_join:join_groups", shared | {"of_group": "i32"}, {"CHANNELS": 256}, {"num_warps": 1}),
        Kernel(f"{KERNELS}_join:join_groups", shared | {"of_group": "i32"}, {"CHANNELS": 16}, {"num_warps": 1}),
        Kernel(
            f"{KERNELS}_join:sum_parts",
            pointers | dict.fromkeys(("units", "width", "parts"), "i32"),
            {"BLOCK": 128},
            {"num_warps": 4},
        ),
    ]


def assert_fit(kernels: list[Kernel], target: str) -> None:
    for kernel, compiled in zip(kernels, compile_kernels(kernels, target), strict=True):
        assert compiled.spills == 0, (kernel, compiled)
        assert compiled.shared <= min(SHARED, TARGETS[target][1]), (kernel, compiled)


@pytest.mark.skipif(DEVICE != "cpu", reason="needs no GPU")
def test_kernels_fit_into_registers() -> None:
    kernels = [
        channel_kernel("places_along", places_config(3136), torch.bfloat16, "joined", 8),
        channel_kernel("channels_along", channels_config(64), torch.bfloat16, "joined", 8),
        row_kernel(768, torch.bfloat16),
        join_kernels()[0],
    ]
    assert_fit(kernels, "sm_90")


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_fits_into_registers(target: str, dtype: torch.dtype) -> None:
    modes = ("own", "given", "joined", "given, part")
    align = 16 // dtype.itemsize
    kernels = [
        channel_kernel("places_along", places_config(p), dtype, mode, a, long=p > 1024)
        for p, a in ((49, 1), (196, 4), (3136, align))
        for mode in modes
    ]
    kernels += [
        channel_kernel("channels_along", channels_config(c), dtype, mode, a)
        for c, a in ((3, 1), (24, 4), (2048, align))
        for mode in modes
    ]
    kernels += [row_kernel(columns, dtype) for columns in (16, 32, 256, 768, 1024, 4096, 8192)]
    assert_fit(kernels + join_kernels(), target)
