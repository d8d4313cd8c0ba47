from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from op_cases import DTYPES, SETTINGS, assert_accurate, special_value, where_finite
from torch import Tensor

from imbdyn.ops import NormGradients, _extension, norm_gradients, norm_gradients_rows
from imbdyn.ops.norm_gradients.portable import norm_gradients_portable, norm_gradients_rows_portable
from imbdyn.ops.norm_gradients.reference import norm_gradients_reference, norm_gradients_rows_reference

#: The edges of the vectors (4 to 16 lanes, two at a time), of the 64 rows of a chunk and of panels of 1024 elements.
SIZES = (1, 2, 3, 15, 16, 17, 33, 63, 64, 65, 130)
LARGE_SIZES = (1023, 1024, 1025, 2100)
LAYOUTS = ("contiguous", "transposed", "every other", "steps", "expanded")
IMPLEMENTATIONS = ["served", "portable"]


def lay_out(t: Tensor, layout: str) -> Tensor:
    """Return `t` (or, expanded, what repeats its last dimension's first entry) with the strides that `layout` names."""
    if layout == "transposed":
        return t.mT.contiguous().mT
    if layout == "every other":
        return t.repeat_interleave(2, -1)[..., ::2]
    if layout == "steps":
        units, rows, columns = t.shape
        wide = t.new_full((units, 3 * columns + 2, 2 * rows + 1), torch.nan)
        wide[:, 2::3, 1::2] = t.mT
        return wide[:, 2::3, 1::2].mT
    if layout == "expanded":
        return t[..., :1].expand(t.shape)
    return t.contiguous()


def make_pair(
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    layouts: tuple[str, str] = ("contiguous", "contiguous"),
    *,
    mean: float = 0.0,
    special: tuple[str, str] = ("", ""),
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return x and dy, normal; x with a deviation of about 1 by channel and row. Some elements are `special`."""
    random = torch.Generator().manual_seed(seed)
    x, dy = torch.randn((2, *shape), generator=random, dtype=torch.float64)
    pair = [(x + mean).to(dtypes[0]), dy.to(dtypes[1])]
    for t, names in zip(pair, special, strict=True):
        for name in names.split():
            t[torch.rand(shape, generator=random) < 0.02] = special_value(name, t.dtype)
    return lay_out(pair[0], layouts[0]), lay_out(pair[1], layouts[1])


def by_channels(
    implementation: str, x: Tensor, dy: Tensor, groups: int, across: bool, **given: Tensor
) -> NormGradients:
    if implementation == "portable":
        return NormGradients(
            *norm_gradients_portable(x, dy, groups, across, given.get("mean"), given.get("variance"), 1e-5)
        )
    return norm_gradients(x, dy, groups, across_units=across, **given)


def assert_as_formula(
    got: NormGradients, x: Tensor, dy: Tensor, oracle: NormGradients, plain: NormGradients, *, over: int
) -> None:
    """Compare with the reference, at the tolerance of all ops; sums `over` a dimension are as large as those of dy."""
    dtype = torch.float64 if torch.float64 in (x.dtype, dy.dtype) else torch.float32
    finite = dy.double().nan_to_num(posinf=0, neginf=0)
    magnitude = finite.abs().sum(over).amax() if dy.numel() else torch.zeros((), dtype=torch.float64)
    for name, one, expected, beside in zip(got._fields, got, oracle, plain, strict=True):
        assert one.dtype == dtype
        assert one.shape == expected.shape
        compared = where_finite(name, one, expected) if name == "weight" else one
        assert_accurate(name, compared, expected, beside, magnitude, dtype)


@st.composite
def pairs(draw: st.DrawFn, special: tuple[str, ...] = ("",)) -> tuple[Tensor, Tensor]:
    shape = (draw(st.sampled_from((0, 1, 2, 5))), draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES)))
    dtypes = (draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES)))
    layouts = (draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS)))
    specials = (draw(st.sampled_from(special)), draw(st.sampled_from(special)))
    return make_pair(shape, dtypes, layouts, special=specials, seed=draw(st.integers(0, 1000)))


@SETTINGS
@given(pairs(), st.booleans(), st.data())
def test_channels_match_reference(pair: tuple[Tensor, Tensor], across: bool, data: st.DataObject) -> None:
    x, dy = pair
    channels = x.shape[1]
    groups = data.draw(st.sampled_from([g for g in (1, 3, channels) if channels % g == 0]))
    plain = NormGradients(*norm_gradients_portable(x, dy, groups, across, None, None, 1e-5))
    oracle = NormGradients(*norm_gradients_reference(x, dy, groups, across, None, None, 1e-5))
    assert_as_formula(norm_gradients(x, dy, groups, across_units=across), x, dy, oracle, plain, over=2)


@SETTINGS
@given(pairs())
def test_channels_with_given_statistics_match_reference(pair: tuple[Tensor, Tensor]) -> None:
    x, dy = pair
    mean, variance = torch.randn(x.shape[1]), torch.rand(x.shape[1]) + 0.5
    plain = NormGradients(*norm_gradients_portable(x, dy, 1, False, mean, variance, 1e-5))
    oracle = NormGradients(*norm_gradients_reference(x, dy, 1, False, mean, variance, 1e-5))
    assert_as_formula(norm_gradients(x, dy, 1, mean=mean, variance=variance), x, dy, oracle, plain, over=2)


@SETTINGS
@given(pairs(), st.booleans())
def test_rows_match_reference(pair: tuple[Tensor, Tensor], centred: bool) -> None:
    x, dy = pair
    plain = NormGradients(*norm_gradients_rows_portable(x, dy, centred, 1e-5))
    oracle = NormGradients(*norm_gradients_rows_reference(x, dy, centred, 1e-5))
    assert_as_formula(norm_gradients_rows(x, dy, centred=centred), x, dy, oracle, plain, over=1)


@pytest.mark.parametrize("size", LARGE_SIZES)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_more_places_and_columns_than_a_panel(size: int, layout: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((2, 3, size), (2, size, 3)):
            x, dy = make_pair(shape, (dtype, dtype), (layout, layout))
            plain = NormGradients(*norm_gradients_portable(x, dy, shape[1], True, None, None, 1e-5))
            oracle = NormGradients(*norm_gradients_reference(x, dy, shape[1], True, None, None, 1e-5))
            assert_as_formula(norm_gradients(x, dy, shape[1], across_units=True), x, dy, oracle, plain, over=2)
            plain = NormGradients(*norm_gradients_rows_portable(x, dy, True, 1e-5))
            oracle = NormGradients(*norm_gradients_rows_reference(x, dy, True, 1e-5))
            assert_as_formula(norm_gradients_rows(x, dy), x, dy, oracle, plain, over=1)


@pytest.mark.skipif(_extension.kernels is None, reason=_extension.why_missing)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("size", [64, 1500])
def test_large_mean_keeps_digits(size: int, layout: str) -> None:
    x, dy = make_pair((4, 6, size), layouts=(layout, layout), mean=1e4)
    for across, groups in ((True, 6), (False, 6), (False, 2)):
        got = norm_gradients(x, dy, groups, across_units=across).weight
        oracle = norm_gradients_reference(x, dy, groups, across, None, None, 1e-5)[0]
        # x holds 1e-3 of the deviation; its own rounding is in the oracle too, so that what is left are float32 sums
        torch.testing.assert_close(got.double(), oracle, rtol=0, atol=2e-7 * size)
    got = norm_gradients_rows(x, dy).weight
    torch.testing.assert_close(got.double(), norm_gradients_rows_reference(x, dy, True, 1e-5)[0], rtol=0, atol=1e-5)


def scale_gradients(
    function: object, x: Tensor, dy: Tensor, shape: int | tuple[int, ...], **arguments: object
) -> Tensor:
    weight = torch.ones(shape, dtype=x.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(x, weight=weight, **arguments), weight, dy)  # type: ignore[operator]
    return gradient


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_units_sum_to_the_gradients_that_autograd_has(implementation: str) -> None:
    x, dy = make_pair((5, 6, 7), (torch.float64, torch.float64), mean=3)
    statistics = {"mean": torch.rand(6).double(), "variance": torch.rand(6).double() + 0.5}
    batch = {"running_mean": None, "running_var": None, "training": True}
    running = {"running_mean": statistics["mean"], "running_var": statistics["variance"]}
    for got, expected in (
        (by_channels(implementation, x, dy, 6, True), scale_gradients(F.batch_norm, x, dy, 6, **batch)),
        (by_channels(implementation, x, dy, 6, True, **statistics), scale_gradients(F.batch_norm, x, dy, 6, **running)),
        (by_channels(implementation, x, dy, 3, False), scale_gradients(F.group_norm, x, dy, 6, num_groups=3)),
        (by_channels(implementation, x, dy, 6, False), scale_gradients(F.instance_norm, x, dy, 6)),
    ):
        torch.testing.assert_close(got.weight.sum(0), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got.bias, dy.sum(2), rtol=1e-12, atol=1e-12)
    rows = norm_gradients_rows if implementation == "served" else norm_gradients_rows_portable
    for centred, function in ((True, F.layer_norm), (False, F.rms_norm)):
        weight, bias = rows(x, dy, centred=centred, eps=1e-3)
        expected = scale_gradients(function, x, dy, (7,), normalized_shape=(7,), eps=1e-3)
        torch.testing.assert_close(weight.sum(0), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(bias, dy.sum(1), rtol=1e-12, atol=1e-12)


def test_equal_elements_have_no_scale_gradient() -> None:
    x = torch.full((3, 4, 50), 0.7)
    dy = torch.randn(3, 4, 50)
    for t, d in ((x, dy), (x.mT.contiguous().mT, dy.mT.contiguous().mT)):
        assert float(norm_gradients(t, d, 4, across_units=True).weight.abs().max()) < 1e-3
    assert float(norm_gradients_rows(x, dy).weight.abs().max()) < 1e-3


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 70])
def test_what_is_not_finite_stays_in_its_statistics(value: float, place: int) -> None:
    x, dy = make_pair((3, 4, 80))
    x[1, 2, place] = value
    for t, d in ((x, dy), (x.mT.contiguous().mT, dy.mT.contiguous().mT)):
        of_batch = norm_gradients(t, d, 4, across_units=True)
        assert of_batch.weight[:, 2].isnan().all()
        assert of_batch.weight[:, [0, 1, 3]].isfinite().all()
        assert of_batch.bias.isfinite().all()
        assert norm_gradients(t, d, 4).weight.isnan().nonzero().tolist() == [[1, 2]]
    assert norm_gradients_rows(x, dy).weight.isnan().nonzero().tolist() == [[1, j] for j in range(80)]


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
def test_without_elements_sums_are_zero(shape: tuple[int, int, int]) -> None:
    x = torch.zeros(shape)
    for across in (True, False):
        for sums in norm_gradients(x, x, 1, across_units=across):
            assert torch.equal(sums, torch.zeros(shape[:2]))
    if shape[2]:
        for sums in norm_gradients_rows(x, x):
            assert torch.equal(sums, torch.zeros(shape[0], shape[2]))


def test_wrong_arguments_are_errors() -> None:
    x = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"one shape of three dimensions, got \(2, 4, 3\) and \(2, 4\)"):
        norm_gradients(x, x[..., 0], 1)
    with pytest.raises(ValueError, match="num_groups must divide the number of channels, got 3 and 4"):
        norm_gradients(x, x, 3)
    with pytest.raises(ValueError, match="mean and variance must be given together"):
        norm_gradients(x, x, 1, mean=torch.zeros(4))
    with pytest.raises(ValueError, match=r"variance must be \[C\] with C=4, got \(3,\)"):
        norm_gradients(x, x, 1, mean=torch.zeros(4), variance=torch.ones(3))
    with pytest.raises(TypeError, match=r"grad_output must have a floating dtype, got torch\.int64"):
        norm_gradients_rows(x, x.long())
    with pytest.raises(ValueError, match=r"must have a column to be normalised, got shape \(2, 4, 0\)"):
        norm_gradients_rows(x[..., :0], x[..., :0])
