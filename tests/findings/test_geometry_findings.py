"""Minority collapse and SELI: closed forms for STEP profiles, and geometries made from their definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from findings.synthetic_traces import geometry_rows, write_rows

from imbdyn.findings.geometry import centred, distance
from imbdyn.findings.minority_collapse import minority_collapse
from imbdyn.findings.neural_collapse import nc2
from imbdyn.findings.seli import seli_grams, seli_means, seli_rows


def closed_form(classes: int, ratio: float) -> dict[str, float]:
    """The (R, 1/2)-STEP geometry, SCIENCE 2.5."""
    s, r = ((ratio + 1) / 2) ** 0.5, ratio**0.5
    rest, shared = 1 - 2 / classes, s / classes
    return {
        "rows": (r * rest + shared) / (rest + shared),
        "means": (rest / r + 1 / (classes * s)) / (rest + 1 / (classes * s)),
        "cos_rare": (-2 / classes + shared) / (rest + shared),
        "cos_common": (-2 * r / classes + shared) / (r * rest + shared),
    }


def by_definition(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows [K, K] and class means [K, K] of SELI, from the decomposition of the simplex-encoded labels."""
    labels = np.repeat(np.arange(len(counts)), counts)
    encoded = np.eye(len(counts))[:, labels] - 1 / len(counts)
    v, lengths, u = np.linalg.svd(encoded, full_matrices=False)
    root = np.sqrt(np.where(lengths > 1e-9, lengths, 0.0))
    first = np.searchsorted(labels, np.arange(len(counts)))
    return v * root, (root[:, None] * u).T[first]


@pytest.mark.parametrize(("classes", "ratio"), [(4, 10), (10, 10), (10, 100)])
def test_seli_of_a_step_profile_is_the_closed_form(classes: int, ratio: int) -> None:
    half = classes // 2
    rows, means = seli_grams([ratio] * half + [1] * half)
    expected = closed_form(classes, ratio)
    assert rows[0, 0] / rows[-1, -1] == pytest.approx(expected["rows"], rel=1e-12)
    assert means[0, 0] / means[-1, -1] == pytest.approx(expected["means"], rel=1e-12)
    assert rows[-1, -2] / rows[-1, -1] == pytest.approx(expected["cos_rare"], rel=1e-12)
    assert rows[0, 1] / rows[0, 0] == pytest.approx(expected["cos_common"], rel=1e-12)


def test_the_closed_form_has_the_numbers_that_are_known() -> None:
    ten, hundred = closed_form(10, 10), closed_form(10, 100)
    assert (round(ten["rows"], 3), round(hundred["rows"], 3)) == (2.672, 5.766)
    assert (round(ten["means"], 4), round(hundred["means"], 5)) == (0.3508, 0.11556)
    assert (round(ten["cos_rare"], 5), round(hundred["cos_rare"], 5)) == (0.03337, 0.33803)


@pytest.mark.parametrize("counts", [[100] * 5 + [1] * 5, [50, 20, 5, 3], [7] * 6], ids=["step", "tail", "equal"])
def test_a_network_that_is_seli_has_no_distance_from_it(tmp_path: Path, counts: list[int]) -> None:
    rows, means = by_definition(counts)
    # rotated, scaled and shifted: neither changes the shape
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((len(counts), len(counts))))[0]
    seli = geometry_rows(3 * rows @ rotation + 0.7, 0.2 * means @ rotation - 5.0)
    trace = write_rows(tmp_path / "run", counts, seli, rare=[len(counts) - 1])
    for found in (seli_rows(trace), seli_means(trace)):
        assert found.value == pytest.approx(0, abs=1e-7)
        assert found.steps == (10, 10)
        assert found.effect_size is not None
        if len(set(counts)) > 1:
            assert found.effect_size > 0.1, "the simplex is another shape"
        else:
            assert found.effect_size == pytest.approx(0, abs=1e-7), "the simplex is SELI"


def test_a_simplex_is_not_seli_of_unequal_counts(tmp_path: Path) -> None:
    counts = [100] * 5 + [1] * 5
    simplex = np.eye(10) - 1 / 10
    trace = write_rows(tmp_path / "run", counts, geometry_rows(simplex, simplex), rare=[9])
    gram = seli_grams(counts)[0]
    cosine = (gram * simplex).sum() / (np.linalg.norm(gram) * 3)  # ||I - 11^T/10||_F = 3
    found = seli_rows(trace)
    assert found.value == pytest.approx((2 - 2 * cosine) ** 0.5)
    assert found.effect_size == pytest.approx(-found.value)


def test_distance_and_centring() -> None:
    assert distance(np.diag([2.0, 0.0]), np.diag([0.0, 5.0])) == pytest.approx(2**0.5)
    assert np.isnan(distance(np.zeros((2, 2)), np.eye(2)))
    x = np.random.default_rng(0).standard_normal((5, 3)) + 4
    np.testing.assert_allclose(centred(x @ x.T), (x - x.mean(0)) @ (x - x.mean(0)).T, atol=1e-12)


def test_classes_without_training_samples_are_left_out(tmp_path: Path) -> None:
    rows, means = by_definition([8, 8, 2])
    rows, means = np.vstack([rows, [9.0, 9.0, 9.0]]), np.vstack([means, [1.0, 2.0, 3.0]])
    trace = write_rows(tmp_path / "run", [8, 8, 2, 0], geometry_rows(rows, means), rare=[2])
    assert seli_rows(trace).value == pytest.approx(0, abs=1e-7)


def test_lengths_without_cosines_are_no_orthogonal_rows(tmp_path: Path) -> None:
    rows = [
        (table, {name: values for name, values in columns.items() if not name.endswith("_cos")})
        for table, columns in geometry_rows(np.eye(3), np.eye(3))
    ]
    trace = write_rows(tmp_path / "run", [9, 9, 2], rows, rare=[2])
    for found in (seli_rows(trace), seli_means(trace)):
        assert found.value is None
        assert "No cosines of two classes" in found.sentence


class TestMinorityCollapse:
    def test_rows_of_a_simplex_have_its_cosine(self, tmp_path: Path) -> None:
        simplex = np.eye(10) - 1 / 10
        trace = write_rows(tmp_path / "run", [9] * 10, geometry_rows(simplex, simplex), rare=[0, 1, 2])
        found = minority_collapse(trace)
        assert found.value == pytest.approx(-1 / 9)
        assert found.null == pytest.approx(-1 / 9)
        assert found.effect_size == pytest.approx(0)
        assert found.p_value == 1, "every group is as alike"

    def test_rows_of_seli_have_the_closed_form(self, tmp_path: Path) -> None:
        counts = [100] * 5 + [1] * 5
        rows, means = by_definition(counts)
        found = minority_collapse(
            write_rows(tmp_path / "run", counts, geometry_rows(rows, means), rare=[5, 6, 7, 8, 9])
        )
        expected = closed_form(10, 100)
        assert found.value == pytest.approx(expected["cos_rare"])
        assert found.effect_size == pytest.approx(expected["cos_rare"] - expected["cos_common"])
        assert found.by_class == pytest.approx(dict.fromkeys(range(5, 10), expected["cos_rare"]))
        assert found.p_value == pytest.approx(1 / 252), "one of the ways to choose five of ten classes"
        assert "(simplex -0.11, SELI 0.34)" in found.sentence

    def test_equal_rows_have_collapsed(self, tmp_path: Path) -> None:
        rows = np.vstack([np.tile([1.0, 1.0, 0.0], (2, 1)), np.eye(3)[1:]])
        found = minority_collapse(write_rows(tmp_path / "run", [1, 1, 9, 9], geometry_rows(rows, rows), rare=[0, 1]))
        assert found.value == pytest.approx(1)

    def test_one_rare_class_has_no_pair(self, tmp_path: Path) -> None:
        found = minority_collapse(write_rows(tmp_path / "run", [1, 9], geometry_rows(np.eye(2), np.eye(2)), rare=[0]))
        assert found.value is None
        assert "Fewer than two rare classes" in found.sentence


def test_two_classes_have_neither_nc2_nor_seli_of_their_own(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = geometry_rows(generator.normal(size=(2, 5)), generator.normal(size=(2, 5)))
    rows.append(("features", {"step": 10, "split": "train_eval", "layer": "head", "count": 2, "nc2_angle": 0.0}))
    trace = write_rows(tmp_path / "run", [100, 5], rows[1:], rare=[1])
    for measure in (nc2, seli_rows, seli_means):
        found = measure(trace)
        assert found.value is None
        assert found.sentence.endswith("whatever they are.")
