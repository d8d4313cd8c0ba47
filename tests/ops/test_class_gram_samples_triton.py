from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import SETTINGS
from triton_device import DEVICE, EXAMPLES

from imbdyn.ops import class_gram_samples
from imbdyn.ops.class_gram.reference import class_gram_reference
from imbdyn.ops.class_gram.triton_samples import class_gram_samples_triton

WAYS = {"triton": (class_gram_samples_triton, DEVICE), "cpu": (class_gram_samples, "cpu")}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


def compute(way: str, gradients: list[torch.Tensor], labels: torch.Tensor, num_classes: int, ignore: int = -100):
    function, device = WAYS[way]
    on_device = [d.to(device) for d in gradients]
    if way == "cpu":
        found = function(on_device, labels.to(device), num_classes, ignore_index=ignore)
    else:
        found = function(on_device, labels.to(device), num_classes, ignore)
    return [t.cpu() for t in found]


def oracle(d: torch.Tensor, labels: torch.Tensor, num_classes: int, ignore: int = -100):
    return class_gram_reference(torch.ones(len(d), 1, dtype=d.dtype), d, labels, num_classes, None, ignore)


@pytest.mark.parametrize("name", WAYS)
@settings(SETTINGS, max_examples=EXAMPLES)
@given(
    rows=st.sampled_from([0, 1, 31, 33, 70]),
    columns=st.lists(st.sampled_from([1, 3, 64, 65, 300]), min_size=0, max_size=4),
    num_classes=st.sampled_from([1, 2, 10, 70]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_of_each_parameter_as_by_itself(name, rows, columns, num_classes, dtype, seed):
    torch.manual_seed(seed)
    gradients = [torch.randn(rows, n).to(dtype) + 0.5 for n in columns]
    labels = torch.randint(0, num_classes, (rows,)).masked_fill(torch.rand(rows) < 0.2, -100)
    gram, norms = compute(name, gradients, labels, num_classes)
    assert gram.shape == (len(columns), num_classes, num_classes)
    assert gram.dtype == norms.dtype == torch.float64
    for i, d in enumerate(gradients):
        want_gram, want_norms = oracle(d, labels, num_classes)
        length = want_gram.diagonal().sqrt() + 1e-30
        assert ((gram[i] - want_gram).abs() <= 1e-5 * length[:, None] * length + 1e-30).all()
        torch.testing.assert_close(norms[i], want_norms, rtol=1e-5, atol=0)


def test_nan_stays_with_its_class(way):
    d = torch.randn(8, 5)
    d[3, 2], d[5, 0] = torch.nan, torch.inf
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, -100])
    gram, norms = compute(way, [d], labels, 5)
    finite = gram[0].isfinite()
    assert finite[[0, 0, 3], [0, 3, 3]].all()
    assert not finite[[1, 1, 2], [0, 1, 2]].any()
    assert (gram[0, 4] == 0).all()  # absent
    assert norms[0].isfinite().tolist() == [True, False, False, True, True]


def test_bad_labels_count_nowhere_on_a_gpu():
    d = torch.randn(6, 40)
    labels = torch.tensor([0, 1, -1, 2**40, -(2**60), 3])
    gram, norms = compute("triton", [d], labels, 3)
    want_gram, want_norms = oracle(d[:2], labels[:2], 3)
    torch.testing.assert_close(gram[0], want_gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norms[0], want_norms, rtol=1e-5, atol=0)


def test_a_class_may_be_the_ignored_one(way):
    d, labels = torch.randn(6, 4), torch.tensor([0, 1, 1, 2, 0, 2])
    gram, norms = compute(way, [d], labels, 3, ignore=1)
    want_gram, want_norms = oracle(d, labels, 3, ignore=1)
    torch.testing.assert_close(gram[0], want_gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norms[0], want_norms, rtol=1e-5, atol=0)


def test_rows_may_lie_apart(way):
    wide, labels = torch.randn(9, 20), torch.arange(9) % 4
    gram, _ = compute(way, [wide[:, 3:9]], labels, 4)
    torch.testing.assert_close(gram[0], oracle(wide[:, 3:9], labels, 4)[0], rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_raises():
    with pytest.raises(ValueError, match=r"gradients\[1\]"):
        class_gram_samples([torch.ones(3, 2), torch.ones(4, 2)], torch.zeros(3, dtype=torch.int64), 2)
