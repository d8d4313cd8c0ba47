from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import DTYPES, SETTINGS, assert_accurate
from torch import Tensor

from imbdyn.ops import parameter_norms
from imbdyn.ops.class_moments import accumulator_dtype
from imbdyn.ops.parameter_norms.reference import parameter_norms_reference

SHAPES = [(), (1,), (7,), (0, 3), (5, 4), (33, 1), (2, 3, 3, 2)]


def plain_torch(w: Tensor, grad: Tensor | None, old: Tensor | None) -> Tensor:
    w = w.to(accumulator_dtype(w.dtype))
    nan = w.new_tensor(torch.nan)
    dw = None if old is None else w - old.to(w.dtype)
    return torch.stack(
        [
            w.norm(),
            nan if grad is None else grad.to(w.dtype).norm(),
            nan if dw is None else dw.norm(),
            nan if dw is None else (w * dw).sum(),
        ]
    )


@st.composite
def tensors(draw: st.DrawFn) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]:
    dtype = draw(st.sampled_from(DTYPES))
    random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    special = draw(st.sampled_from([None, None, torch.nan, torch.inf]))
    params: list[Tensor] = []
    grads: list[Tensor | None] = []
    previous: list[Tensor | None] = []
    for shape in draw(st.lists(st.sampled_from(SHAPES), max_size=5)):
        w, grad, change = (torch.randn(shape, generator=random).to(dtype) for _ in range(3))
        if special is not None and w.numel():
            grad.view(-1)[0] = special
        if w.dim() == 2 and draw(st.booleans()):
            w, grad = w.T.contiguous().T, grad.T.contiguous().T
        params.append(w)
        grads.append(grad if draw(st.booleans()) else None)
        previous.append(w - 1e-3 * change if draw(st.booleans()) else None)
    return params, grads, previous


@SETTINGS
@given(tensors())
def test_matches_reference(case: tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]) -> None:
    params, grads, previous = case
    for rows in (None, *(i for i, w in enumerate(params) if w.dim() > 0)):
        got = parameter_norms(params, grads, previous, rows=rows)
        oracle, oracle_rows = parameter_norms_reference(params, grads, previous, -1 if rows is None else rows)
        for i, (w, grad, old) in enumerate(zip(params, grads, previous, strict=True)):
            plain = plain_torch(w, grad, old)
            # <w, dw> cancels; its terms are as large as ||w|| ||dw||
            size = torch.cat([oracle[i, :3], (oracle[i, :1] * oracle[i, 2:3])]).abs().nan_to_num(posinf=0)
            assert_accurate(f"tensors[{i}]", got.tensors[i], oracle[i], plain, size, w.dtype)
        if rows is None:
            assert got.rows.shape == (0, 4)
            continue
        row_args = (params[rows], grads[rows], previous[rows])
        for k in range(params[rows].shape[0]):
            plain = plain_torch(*(None if t is None else t[k] for t in row_args))  # type: ignore[arg-type]
            size = torch.cat([oracle_rows[k, :3], oracle_rows[k, :1] * oracle_rows[k, 2:3]]).abs().nan_to_num(posinf=0)
            assert_accurate(f"rows[{k}]", got.rows[k], oracle_rows[k], plain, size, params[rows].dtype)


def test_rows_add_up_to_the_tensor() -> None:
    w, grad = torch.randn(6, 5), torch.randn(6, 5)
    got = parameter_norms([torch.ones(3), w], [None, grad], [None, w - 0.1 * grad], rows=1)
    torch.testing.assert_close(got.rows[:, :3].square().sum(0), got.tensors[1, :3].square())
    torch.testing.assert_close(got.rows[:, 3].sum(), got.tensors[1, 3])


def test_what_was_not_given_is_nan() -> None:
    got = parameter_norms([torch.ones(4)], [None], [None])
    assert got.tensors[0, 0] == 2
    assert bool(got.tensors[0, 1:].isnan().all())


def test_unequal_lengths_are_an_error_with_all_three() -> None:
    with pytest.raises(ValueError, match="one length, got 1, 0 and 1"):
        parameter_norms([torch.ones(1)], [], [None])


def test_rows_out_of_range_is_an_error_with_the_range() -> None:
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.0, got 1"):
        parameter_norms([torch.ones(1)], [None], [None], rows=1)
