from __future__ import annotations

import sys

import pytest
import torch

from imbdyn.experiments.data import MissingDataError, load_digits


def test_digits_are_split_stratified_and_standardised() -> None:
    data = load_digits(0.3, seed=0)
    assert data.train_images.shape == (1257, 1, 8, 8)
    assert data.test_images.shape == (540, 1, 8, 8)
    assert data.train_images.dtype == torch.float32
    assert data.train_images.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert data.train_images.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    held_out = torch.bincount(data.test_labels)
    # stratified: a class's share of 0.3, rounded
    assert all(abs(n - 0.3 * (n + m)) <= 1 for n, m in zip(held_out.tolist(), data.train_counts(), strict=True))
    assert data.class_names == tuple("0123456789")


def test_the_seed_decides_the_split() -> None:
    first, again, other = (load_digits(0.3, seed=seed).test_labels for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_missing_scikit_learn_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDataError, match=r'pip install "imbdyn\[run\]"'):
        load_digits(0.3, seed=0)
