"""The arithmetic that stands in for a GPU's is as wrong as documented, and not more."""

from __future__ import annotations

import gpu_arithmetic as gpu
import numpy as np
import pytest


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def units_off(got: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs((got - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


def test_results_are_off_by_the_documented_units() -> None:
    a, b = numbers(4000), numbers(4000, seed=1)
    wide = {name: value.astype(np.float64) for name, value in (("a", a), ("b", b))}
    assert 1.5 < units_off(gpu.divide(a, b), wide["a"] / wide["b"]) <= 2.5
    assert 0.9 < units_off(gpu.square_root(np.abs(a)), np.sqrt(np.abs(wide["a"]))) <= 1.5
    assert 0.9 < units_off(gpu.logarithm(np.abs(a)), np.log(np.abs(wide["a"]))) <= 1.5
    assert np.array_equal(gpu.divide(a, b), gpu.divide(a, b))
    assert np.array_equal(gpu.divide(wide["a"], wide["b"]), wide["a"] / wide["b"])


def test_exp_errs_with_its_argument_and_has_no_subnormal_results() -> None:
    x = np.linspace(-80, 0, 5000, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    error = np.abs(gpu.exponential(x) / exact - 1)
    # 2 units, and in the exponent those of x log2(e) and of log2(e) itself
    assert (error <= 2**-22 + 2**-24 + np.abs(x) * 1.5 * 2**-24).all()
    assert error[:500].max() > 2**-20
    special = np.array([0, -np.inf, np.inf, -88, -100], np.float32)
    assert gpu.exponential(special).tolist()[:3] == [1, 0, np.inf]
    assert gpu.exponential(special)[3:].tolist() == [0, 0]
    assert np.isnan(gpu.exponential(np.array([np.nan], np.float32)))


def test_a_product_that_is_added_to_is_rounded_once() -> None:
    a = np.float32([1 + 2**-12])
    assert gpu.fused(a, a, -np.float32([1 + 2**-11])) == np.float32(2**-24)


@pytest.mark.parametrize(("precision", "least", "most"), [("TF32", 2**-13, 2**-9), ("TF32x3", 2**-25, 2**-21)])
def test_products_lose_the_bits_of_their_precision(precision: str, least: float, most: float) -> None:
    a, b = numbers(32, 64), numbers(64, 32, seed=1)
    got = gpu.dot(a, b, np.zeros((32, 32), np.float32), precision)
    exact = a.astype(np.float64) @ b
    error = (np.abs(got - exact) / (np.abs(a).astype(np.float64) @ np.abs(b))).max()
    assert least < error < most


def test_three_products_keep_infinity_and_nan_where_they_are() -> None:
    a, b = numbers(16, 16), np.abs(numbers(16, 16, seed=1))
    a[2, 3], a[5, 5] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        got = gpu.dot(a, b, np.zeros((16, 16), np.float32), "TF32x3")
    assert (got[2] == np.inf).all()
    assert np.isnan(got[5]).all()
    assert np.isfinite(np.delete(got, [2, 5], 0)).all()


def test_sums_are_of_all_elements_along_an_axis() -> None:
    a = numbers(7, 16).astype(np.float64)
    np.testing.assert_allclose(gpu.total(a, 0), a.sum(0), rtol=1e-13)
    np.testing.assert_allclose(gpu.total(a, 1), a.sum(1), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(gpu.total(a, None), a.sum(), rtol=1e-13)
