from __future__ import annotations

import pytest
import torch
from hypothesis import given
from op_cases import DTYPES, LAYOUTS, SETTINGS, Rows, assert_accurate, lay_out, make_rows, row_cases
from torch import Tensor

from imbdyn.ops import ClassLogits, add_class_logits, class_logits
from imbdyn.ops.class_logits.reference import class_logits_reference
from imbdyn.ops.class_moments import accumulator_dtype

FEW = 48  # classes up to which the C++ kernel works across rows
PART = 128  # rows that the smallest part of the work has


def plain_torch(case: Rows) -> Tensor:
    """The rounded fields of class_logits in the accumulator's dtype, [8, C]; counts are compared exactly."""
    counted = case.labels != -100
    z, y = case.matrix[counted].to(accumulator_dtype(case.matrix.dtype)), case.labels[counted]
    log_p, p = z.log_softmax(1), z.softmax(1)
    p_y = p.gather(1, y[:, None])[:, 0]
    margin = z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -torch.inf).amax(1)
    nothing = z.new_zeros(case.num_classes)

    def by_class(value: Tensor) -> Tensor:
        return nothing.index_add(0, y, value)

    return torch.stack(
        [
            nothing,
            by_class(-log_p.gather(1, y[:, None])[:, 0]),
            nothing,
            by_class(margin),
            by_class(p_y),
            nothing,
            by_class(1 - p_y),
            p.scatter(1, y[:, None], 0.0).sum(0),
        ]
    )


def check(case: Rows) -> None:
    compare(class_logits(case.matrix, case.labels), case)


def compare(got: ClassLogits, case: Rows) -> None:
    z, dtype = case.matrix, case.matrix.dtype
    oracle = ClassLogits(*class_logits_reference(z, case.labels))
    plain = ClassLogits(*plain_torch(case))
    for field in ("count", "correct", "predicted"):
        assert torch.equal(getattr(got, field), getattr(oracle, field)), field
    # exp(z - m) feels the rounding of z - m, and log s that of s: for each row a sum of as many terms as there are
    # classes, whose rounding grows with the root of their number.
    long = max(1.0, case.num_classes / 1000) ** 0.5
    spread = float(z.double().nan_to_num(posinf=0, neginf=0).abs().max()) if z.numel() else 0.0
    count = oracle.count
    magnitude = {
        "loss_sum": count + oracle.loss_sum.nan_to_num(posinf=0),
        "margin_sum": count * spread,
        "confidence_sum": oracle.confidence_sum * (2 + spread),
        "positive_grad": count,
        "negative_grad": oracle.negative_grad * (2 + spread) + 1e-30,  # below float32's normal numbers exp gives 0
    }
    for field, size in magnitude.items():
        assert_accurate(
            field, getattr(got, field), getattr(oracle, field), getattr(plain, field), long * size.nan_to_num(), dtype
        )


@SETTINGS
@given(row_cases(columns=None, classes=(1, 2, 3, 10, FEW - 1, FEW, FEW + 1, 100, 1000)))
def test_matches_reference(case: Rows) -> None:
    check(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_classes", [31, 32, 33, 64, 65, 1025])
def test_matches_reference_at_lane_edges(num_classes: int, layout: str, dtype: torch.dtype) -> None:
    check(make_rows(66, num_classes, num_classes, dtype, layout, ignored=True))


@pytest.mark.parametrize("rows", [PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 9000])
def test_matches_reference_at_part_edges(rows: int) -> None:
    check(make_rows(rows, 130 if rows < 1000 else 10, 130 if rows < 1000 else 10, ignored=True))


@pytest.mark.parametrize("num_classes", [3, FEW + 2])
@pytest.mark.parametrize(
    "row",
    [
        "nan 0 0",
        "0 nan 0",
        "0 nan nan",
        "inf 0 0",
        "0 inf 0",
        "inf inf 0",
        "-inf 0 0",
        "0 -inf -inf",
        "-inf -inf -inf",
        "inf -inf nan",
        "1 1 1",
        "0 1 1",
        "200 -200 0",
        "-0.0 0.0 -0.0",
    ],
)
def test_special_row_comes_out_as_in_the_reference(row: str, num_classes: int) -> None:
    values = [float(v) for v in row.split()]
    fill = -torch.inf if values[0] == values[1] == values[2] == -torch.inf else -300.0
    z = torch.full((3, num_classes), fill)
    z[:, :2], z[:, -1] = torch.tensor(values[:2]), values[2]
    for label in (0, 1, num_classes - 1):
        # One row at a time shows each row's own NaN; three show that it does not spread to other classes.
        for labels in (torch.tensor([label]), torch.tensor([0, 1, label])):
            check(Rows(z[: len(labels)], labels, num_classes, f"{row} {label}"))


def test_one_class_has_infinite_margin_and_no_loss() -> None:
    got = class_logits(torch.tensor([[3.0], [-2.0]]), torch.tensor([0, 0]))
    assert got.margin_sum.item() == torch.inf
    assert got.loss_sum.item() == got.negative_grad.item() == 0
    assert got.correct.item() == got.confidence_sum.item() == 2


def test_class_without_rows_has_zero_in_its_own_sums() -> None:
    case = make_rows(30, 12, 5)
    got = class_logits(case.matrix, case.labels)
    for field in ("count", "loss_sum", "correct", "margin_sum", "confidence_sum", "positive_grad"):
        assert getattr(got, field)[5:].count_nonzero() == 0, field
    assert bool((got.negative_grad[5:] > 0).all())


@pytest.mark.parametrize("num_classes", [10, 200])
def test_gradient_sums_are_those_of_the_bias(num_classes: int) -> None:
    case = make_rows(300, num_classes, num_classes, torch.float64)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(case.matrix + bias, case.labels, reduction="sum").backward()
    got = class_logits(case.matrix, case.labels)
    # Both sides are sums of 300 numbers below 1 in float64.
    torch.testing.assert_close(got.negative_grad - got.positive_grad, bias.grad, rtol=0, atol=300 * 2**-52)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_adding_equals_summing(layout: str) -> None:
    case = make_rows(40, 5, 5, ignored=True)
    sums = torch.ones(8, 5, dtype=torch.float64)
    sums = lay_out(sums, layout)
    for _ in range(2):
        add_class_logits(sums, case.matrix, case.labels)
    torch.testing.assert_close(sums, 1 + 2 * torch.stack(class_logits(case.matrix, case.labels)), rtol=1e-14, atol=0)


def test_sums_of_another_shape_or_dtype_are_an_error() -> None:
    case = make_rows(4, 5, 5)
    for wrong in (torch.zeros(8, 4, dtype=torch.float64), torch.zeros(8, 5)):
        with pytest.raises(ValueError, match=r"sums must be float64 \[8, 5\], got"):
            add_class_logits(wrong, case.matrix, case.labels)
