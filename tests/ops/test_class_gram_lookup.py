"""class_gram of an embedding: the way that asks the device nothing agrees with the one that does."""

from __future__ import annotations

import pytest
import torch

from imbdyn.ops.class_gram.lookup import class_gram_lookup, lookup_waitless


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (40, 0), (60, 7)])
def test_lookup_that_waits_for_nothing_agrees(rows: int, columns: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    indices = torch.randint(-2, 9, (rows,), generator=random)  # negative ones go nowhere
    samples = torch.arange(rows) // 5
    labels = torch.randint(0, 4, (rows,), generator=random)[samples * 5]
    grads = torch.randn(rows, columns, generator=random).to(dtype)
    grads[indices < 0] = torch.nan
    expected = class_gram_lookup(indices, grads, labels, 4, samples)
    for got, one in zip(lookup_waitless(indices, grads, labels, 4, samples), expected, strict=True):
        torch.testing.assert_close(got, one, rtol=1e-5, atol=1e-5)  # float32 sums of 60 terms
