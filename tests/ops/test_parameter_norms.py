from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import DTYPES, SETTINGS, assert_accurate
from torch import Tensor

from imbdyn.ops import ParameterNorms, _extension, parameter_norms
from imbdyn.ops.parameter_norms.reference import parameter_norms_reference

SHAPES = [(), (1,), (7,), (0, 3), (3, 0), (0,), (5, 4), (33, 1), (1, 40), (2, 3, 3, 2), (4, 1, 3, 3)]
LAYOUTS = ("contiguous", "reversed dimensions", "gaps", "expanded")

Case = tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """Return `tensor` (or, expanded, what repeats its first element) with the strides that `layout` names."""
    if layout == "reversed dimensions":
        backwards = tuple(reversed(range(tensor.dim())))
        return tensor.permute(backwards).contiguous().permute(backwards)
    if layout == "gaps" and tensor.dim() > 0:
        return tensor.repeat_interleave(2, -1)[..., ::2]
    if layout == "expanded" and tensor.numel() > 0:
        return tensor.flatten()[0].expand(tensor.shape)
    return tensor.contiguous()


def assert_as_reference(case: Case, rows: int | None) -> ParameterNorms:
    """Compare with the reference, at float64's tolerance whatever the inputs: all sums are float64."""
    got = parameter_norms(*case, rows=rows)
    oracle = parameter_norms_reference(*case, -1 if rows is None else rows)
    for name, one, expected in zip(got._fields, got, oracle, strict=True):
        assert one.shape == expected.shape
        # <w, dw> cancels; its terms are as large as ||w|| ||dw||
        size = torch.cat([expected[:, :3], expected[:, :1] * expected[:, 2:3]], 1).nan_to_num(posinf=0)
        assert_accurate(name, one, expected, expected, size, torch.float64)
    return got


@st.composite
def tensors(draw: st.DrawFn) -> Case:
    random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    special = draw(st.sampled_from([None, None, torch.nan, torch.inf, -torch.inf, 3e38, 1e-42]))
    mixed = draw(st.booleans())
    dtype = draw(st.sampled_from(DTYPES))

    def variant(values: Tensor) -> Tensor:
        layout = draw(st.sampled_from(LAYOUTS)) if mixed else "contiguous"
        return lay_out(values.to(draw(st.sampled_from(DTYPES)) if mixed else dtype), layout)

    params: list[Tensor] = []
    grads: list[Tensor | None] = []
    previous: list[Tensor | None] = []
    for shape in draw(st.lists(st.sampled_from(SHAPES), max_size=5)):
        w, grad, change = (torch.randn(shape, generator=random) for _ in range(3))
        old = w - 1e-3 * change
        if special is not None and w.numel():
            draw(st.sampled_from([w, grad, old])).view(-1)[0] = special
        params.append(variant(w))
        grads.append(variant(grad) if draw(st.booleans()) else None)
        previous.append(variant(old) if draw(st.booleans()) else None)
    return params, grads, previous


@SETTINGS
@given(tensors())
def test_matches_reference(case: Case) -> None:
    for rows in (None, *(i for i, w in enumerate(case[0]) if w.dim() > 0)):
        assert_as_reference(case, rows)


#: The edges +-1 of the kernel's chunks (32768 elements), panels (1024) and lanes (8 and 16); whole rows and parts.
LARGE_SHAPES = [(32767,), (32769,), (2, 32768), (3, 40_001), (200, 1023), (5, 1025), (70, 15), (70, 17), (40_000, 3)]


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 3, (torch.float32, torch.bfloat16, torch.float64)], ids=str)
@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_large_tensors_match_reference(shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    w, grad, old = (torch.randn(shape, generator=random).to(dtype) for dtype in dtypes)
    got = parameter_norms([old, w], [None, grad], [w, old], rows=1)
    for one, oracle in zip(got, parameter_norms_reference([old, w], [None, grad], [w, old], 1), strict=True):
        # Up to 4096 additions to one float64 lane, each half a unit in the last place off; <w, dw> of a short row
        # cancels.
        torch.testing.assert_close(one, oracle, rtol=4096 * 2**-53, atol=1e-13, equal_nan=True)


def test_update_in_the_last_place_is_exact() -> None:
    # float32 arithmetic would lose dw in w . dw; float64 has every product of this kind.
    old = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 1e3
    w = torch.nextafter(old, torch.full_like(old, torch.inf))
    _, _, update_norm, dot = parameter_norms([w], [None], [old]).tensors[0].tolist()
    pairs = [(a, a - b) for a, b in zip(w.tolist(), old.tolist(), strict=True)]
    terms = [a * d for a, d in pairs]
    assert update_norm == pytest.approx(math.sqrt(math.fsum(d * d for _, d in pairs)), rel=1e-14)
    assert dot == pytest.approx(math.fsum(terms), abs=1e-14 * math.fsum(map(abs, terms)))


def copies(case: Case, rows: int | None = None) -> int:
    """Return how many tensors a call copies."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        parameter_norms(*case, rows=rows)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::copy_")


needs_kernel = pytest.mark.skipif(_extension.kernels is None, reason=_extension.why_missing)


@needs_kernel
def test_dense_tensors_are_read_as_they_lie() -> None:
    image = torch.randn(4, 3, 5, 5)
    last, matrix = image.to(memory_format=torch.channels_last), torch.randn(6, 5)
    one_by_one = torch.randn(8, 3, 1, 1).to(memory_format=torch.channels_last)
    params = [image, last, matrix.T, one_by_one]
    assert copies((params, params, params)) == 0
    assert copies((params, [w.bfloat16() for w in params], [None] * 4)) == 0
    assert copies(([matrix], [matrix], [matrix]), rows=0) == 0


@needs_kernel
def test_only_what_lies_otherwise_is_copied() -> None:
    image = torch.randn(4, 3, 5, 5)
    last, gaps = image.to(memory_format=torch.channels_last), torch.randn(4, 6, 5, 5)[:, ::2]
    assert copies(([last], [image], [last])) == 1
    assert copies(([image], [last], [gaps])) == 2
    assert copies(([gaps], [None], [image])) == 1
    transposed = torch.randn(5, 6).T
    assert copies(([transposed], [None], [transposed])) == 0
    assert copies(([transposed], [None], [transposed]), rows=0) == 2


def test_a_dtype_without_a_kernel_is_measured_too() -> None:
    w = torch.tensor([3.0, 4.0]).to(torch.float8_e5m2)
    got = parameter_norms([w, torch.ones(1)], [torch.ones(2), None], [None, w[:1]])
    assert got.tensors[0, :2].tolist() == [5, math.sqrt(2)]
    assert got.tensors[1, [0, 2, 3]].tolist() == [1, 2, -2]


def test_rows_add_up_to_the_tensor() -> None:
    w, grad = torch.randn(6, 5), torch.randn(6, 5)
    got = parameter_norms([torch.ones(3), w], [None, grad], [None, w - 0.1 * grad], rows=1)
    torch.testing.assert_close(got.rows[:, :3].square().sum(0), got.tensors[1, :3].square())
    torch.testing.assert_close(got.rows[:, 3].sum(), got.tensors[1, 3])


def test_what_was_not_given_is_nan() -> None:
    got = parameter_norms([torch.ones(4)], [None], [None])
    assert got.tensors[0, 0] == 2
    assert bool(got.tensors[0, 1:].isnan().all())


def test_an_empty_tensor_that_was_given_has_norm_0() -> None:
    empty = torch.ones(3, 0)
    got = parameter_norms([empty], [empty], [empty], rows=0)
    assert got.tensors.tolist() == [[0, 0, 0, 0]]
    assert got.rows.tolist() == [[0, 0, 0, 0]] * 3


def test_no_tensors_give_no_numbers() -> None:
    got = parameter_norms([], [], [])
    assert got.tensors.shape == got.rows.shape == (0, 4)


def test_unequal_lengths_are_an_error_with_all_three() -> None:
    with pytest.raises(ValueError, match="one length, got 1, 0 and 1"):
        parameter_norms([torch.ones(1)], [], [None])


def test_wrong_shape_is_an_error_that_names_the_tensor() -> None:
    w = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"grads\[1\] must be shaped as its parameter, \(2, 3\), got \(3, 2\)"):
        parameter_norms([w, w], [w, torch.ones(3, 2)], [None, None])
    with pytest.raises(ValueError, match=r"previous\[0\] must be shaped as its parameter, \(2, 3\), got \(6,\)"):
        parameter_norms([w], [None], [torch.ones(6)])


def test_rows_out_of_range_is_an_error_with_the_range() -> None:
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.0, got 1"):
        parameter_norms([torch.ones(1)], [None], [None], rows=1)


def test_rows_of_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows must name a parameter that has rows, got 0, which is 0-dimensional"):
        parameter_norms([torch.ones(())], [None], [None], rows=0)
