"""Every op with everything at once that may be wrong or rare: shapes, strides, dtypes, numbers and labels.

The result is that of the float64 reference, or an error that names the first bad label; inputs stay as they were, and
nothing is written around a result. `pytest -m nightly` draws many and new examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import test_class_gram
import test_class_gram_conv
import test_class_logits
import test_class_moments
import test_norm_gradients
import test_parameter_norms
import torch
from guard_zones import GuardZones
from hostile_labels import hostile_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_cases import SETTINGS, Rows, make_rows, row_cases
from torch import Tensor

from imbdyn import ops
from imbdyn.ops.norm_gradients.portable import norm_gradients_portable, norm_gradients_rows_portable
from imbdyn.ops.norm_gradients.reference import norm_gradients_reference, norm_gradients_rows_reference

FEW = settings(SETTINGS, max_examples=25, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=600, derandomize=False, print_blob=True)

#: For ops that accumulate in float32 and multiply: what is large there is infinite.
NUMBERS = ("", "", "nan", "inf", "-inf inf nan", "denormal")
ALL_NUMBERS = (*NUMBERS, "large", "large denormal")


@contextmanager
def unchanged(*tensors: Tensor) -> Iterator[None]:
    """Check that the memory of `tensors`, what lies between their elements included, stays as it is."""

    def memory() -> list[Tensor]:
        return [torch.tensor([], dtype=torch.uint8).set_(t.untyped_storage()) for t in tensors]

    before = [bytes_.clone() for bytes_ in memory()]
    yield
    assert all(torch.equal(a, b) for a, b in zip(memory(), before, strict=True)), "an input was written to"


def check_class_moments(draw: st.DrawFn, zones: GuardZones) -> None:
    case = draw(row_cases((0, 1, 3, 16, 33), (1, 2, 10, 130_000), ALL_NUMBERS))
    labels = draw(hostile_labels(case.labels, case.num_classes))
    with unchanged(case.matrix, labels.given):
        got = labels.result_of(
            lambda: ops.class_moments(case.matrix, labels.given, case.num_classes, ignore_index=labels.ignore_index)
        )
    assert zones.check() == 3
    if got is not None:
        test_class_moments.compare(got, replace(case, labels=labels.effective))


def check_add_class_moments(draw: st.DrawFn, zones: GuardZones) -> None:
    case = draw(row_cases((0, 1, 3, 16, 33), (1, 2, 10, 130_000), ALL_NUMBERS))
    labels = draw(hostile_labels(case.labels, case.num_classes))
    columns, special = case.matrix.shape[1], draw(st.sampled_from(ALL_NUMBERS))
    first = make_rows(draw(st.sampled_from((0, 5))), columns, case.num_classes, case.matrix.dtype, special=special)
    before = ops.class_moments(first.matrix, first.labels, case.num_classes)
    zones.check()
    moments = ops.ClassMoments(*map(zones.surround, before))
    with unchanged(case.matrix, labels.given):
        labels.result_of(
            lambda: ops.add_class_moments(moments, case.matrix, labels.given, ignore_index=labels.ignore_index)
        )
    zones.check()
    if labels.first_bad is None:
        together = Rows(
            torch.cat([first.matrix, case.matrix]),
            torch.cat([first.labels, labels.effective]),
            case.num_classes,
            case.text,
        )
        test_class_moments.compare(moments, together, parts=2)
    else:
        for got, expected in zip(moments, before, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def check_class_logits(draw: st.DrawFn, zones: GuardZones) -> None:
    case = draw(row_cases(None, (1, 2, 10, 48, 49, 200, 130_000), ALL_NUMBERS))
    labels = draw(hostile_labels(case.labels, case.num_classes))
    with unchanged(case.matrix, labels.given):
        got = labels.result_of(lambda: ops.class_logits(case.matrix, labels.given, ignore_index=labels.ignore_index))
    assert zones.check() == 1
    if got is not None:
        test_class_logits.compare(got, replace(case, labels=labels.effective))


def check_add_class_logits(draw: st.DrawFn, zones: GuardZones) -> None:
    case = draw(row_cases(None, (1, 2, 10, 48, 49, 200, 130_000), ALL_NUMBERS))
    labels = draw(hostile_labels(case.labels, case.num_classes))
    shape = (8, case.num_classes)
    sums = zones.surround(torch.zeros(shape, dtype=torch.float64))
    if draw(st.booleans()):
        sums = zones.surround(sums.t()).t()
    with unchanged(case.matrix, labels.given):
        labels.result_of(
            lambda: ops.add_class_logits(sums, case.matrix, labels.given, ignore_index=labels.ignore_index)
        )
    zones.check()
    if labels.first_bad is None:
        test_class_logits.compare(ops.ClassLogits(*sums), replace(case, labels=labels.effective))


def check_class_gram(draw: st.DrawFn, zones: GuardZones, *, linear: bool) -> None:
    a, d, samples = draw(test_class_gram.gram_cases((0, 1, 3, 16), (0, 1, 2, 17), NUMBERS))
    rows, dtype = len(a.matrix), a.matrix.dtype
    labels = draw(hostile_labels(a.labels, a.num_classes))
    if draw(st.booleans()):
        random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
        samples = torch.tensor([-(2**63), 2**63 - 1, 0])[torch.randint(0, 3, (rows,), generator=random)]
    op = ops.class_gram_linear if linear else ops.class_gram
    with unchanged(a.matrix, d, labels.given):
        got = labels.result_of(
            lambda: op(a.matrix, d, labels.given, a.num_classes, samples, ignore_index=labels.ignore_index)
        )
    assert zones.check() == (4 if linear else 2)
    if got is None:
        return
    effective = replace(a, labels=labels.effective)
    weight, bias = got if isinstance(got[0], ops.ClassGram) else (got, None)
    test_class_gram.compare(weight, effective, d, samples)
    if bias is not None:
        ones = replace(effective, matrix=torch.ones(rows, 1, dtype=dtype))
        test_class_gram.compare(bias, ones, d, samples)


def check_class_gram_samples(draw: st.DrawFn, zones: GuardZones) -> None:
    a, d, _ = draw(test_class_gram.gram_cases((1,), (0, 1, 2, 17), NUMBERS))
    labels = draw(hostile_labels(a.labels, a.num_classes))
    with unchanged(d, labels.given):
        got = labels.result_of(
            lambda: ops.class_gram_samples([d], labels.given, a.num_classes, ignore_index=labels.ignore_index)
        )
    assert zones.check() == 2
    if got is not None:
        ones = replace(a, labels=labels.effective, matrix=torch.ones(len(d), 1, dtype=d.dtype))
        test_class_gram.compare(ops.ClassGram(got.gram[0], got.sample_norm_sq[0]), ones, d, None)


def check_class_gram_conv(draw: st.DrawFn, zones: GuardZones) -> None:
    case = replace(draw(test_class_gram_conv.cases()), special=draw(st.sampled_from(NUMBERS)))
    x, d, plain_labels = case.tensors()
    labels = draw(hostile_labels(plain_labels, case.num_classes))
    with unchanged(x, d, labels.given):
        got = labels.result_of(
            lambda: test_class_gram_conv.run(case, x, d, labels.given, ignore_index=labels.ignore_index)
        )
    assert zones.check() >= 2
    if got is not None:
        test_class_gram_conv.compare({"chosen way": got}, case, x, d, labels.effective)


def check_norm_gradients(draw: st.DrawFn, zones: GuardZones) -> None:
    x, dy = draw(test_norm_gradients.pairs(NUMBERS))
    groups = draw(st.sampled_from([g for g in (1, 3, x.shape[1]) if x.shape[1] % g == 0]))
    across, given_statistics = draw(st.booleans()), draw(st.booleans())
    mean = torch.linspace(-1, 1, x.shape[1]) if given_statistics else None
    variance = torch.linspace(0.5, 2, x.shape[1]) if given_statistics else None
    with unchanged(x, dy):
        got = ops.norm_gradients(x, dy, groups, across_units=across, mean=mean, variance=variance)
    assert zones.check() == 2
    arguments = (x, dy, groups, across, mean, variance, 1e-5)
    plain = ops.NormGradients(*norm_gradients_portable(*arguments))
    oracle = ops.NormGradients(*norm_gradients_reference(*arguments))
    test_norm_gradients.assert_as_formula(got, x, dy, oracle, plain, over=2)


def check_norm_gradients_rows(draw: st.DrawFn, zones: GuardZones) -> None:
    (x, dy), centred = draw(test_norm_gradients.pairs(NUMBERS)), draw(st.booleans())
    with unchanged(x, dy):
        got = ops.norm_gradients_rows(x, dy, centred=centred)
    assert zones.check() == 2
    plain = ops.NormGradients(*norm_gradients_rows_portable(x, dy, centred, 1e-5))
    oracle = ops.NormGradients(*norm_gradients_rows_reference(x, dy, centred, 1e-5))
    test_norm_gradients.assert_as_formula(got, x, dy, oracle, plain, over=1)


def check_parameter_norms(draw: st.DrawFn, zones: GuardZones) -> None:
    case = draw(test_parameter_norms.tensors())
    rows = draw(st.sampled_from([None, *(i for i, w in enumerate(case[0]) if w.dim() > 0)]))
    with unchanged(*(t for tensors in case for t in tensors if t is not None)):
        test_parameter_norms.assert_as_reference(case, rows)
    assert zones.check() >= 2


CHECKS: dict[str, Callable[[st.DrawFn, GuardZones], None]] = {
    "class_moments": check_class_moments,
    "add_class_moments": check_add_class_moments,
    "class_logits": check_class_logits,
    "add_class_logits": check_add_class_logits,
    "class_gram": partial(check_class_gram, linear=False),
    "class_gram_linear": partial(check_class_gram, linear=True),
    "class_gram_samples": check_class_gram_samples,
    "class_gram_conv": check_class_gram_conv,
    "norm_gradients": check_norm_gradients,
    "norm_gradients_rows": check_norm_gradients_rows,
    "parameter_norms": check_parameter_norms,
}


@pytest.mark.parametrize("op", CHECKS)
@FEW
@given(data=st.data())
def test_op_is_right_or_names_the_bad_label(op: str, guard_zones: GuardZones, data: st.DataObject) -> None:
    guard_zones.forget()  # what the example before has left, if it failed
    CHECKS[op](data.draw, guard_zones)


@pytest.mark.nightly
@pytest.mark.parametrize("op", CHECKS)
@MANY
@given(data=st.data())
def test_op_is_right_or_names_the_bad_label_in_many_cases(
    op: str, guard_zones: GuardZones, data: st.DataObject
) -> None:
    guard_zones.forget()  # what the example before has left, if it failed
    CHECKS[op](data.draw, guard_zones)


def test_every_op_is_checked() -> None:
    assert {name for name in ops.__all__ if name.islower()} == set(CHECKS)


@pytest.mark.parametrize(("offset", "side"), [(-1, "before"), (6, "after")])
def test_what_is_written_beside_a_result_is_found(guard_zones: GuardZones, offset: int, side: str) -> None:
    inside = guard_zones.surround(torch.zeros(2, 3))
    inside[0, 0] = 1
    assert guard_zones.check() == 1
    inside = guard_zones.surround(torch.zeros(2, 3))
    inside.as_strided((1,), (1,), inside.storage_offset() + offset).fill_(0)
    with pytest.raises(AssertionError, match=f"4 bytes {side} a result were written"):
        guard_zones.check()
