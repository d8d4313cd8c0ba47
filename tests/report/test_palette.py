"""The colours, as colour-blind readers see them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from imbdyn.report.figures import palette

#: Machado, Oliveira, Fernandes 2009: matrices at full severity, applied to linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
THEMES = {
    "light": (palette.LIGHT, palette.GREY_LIGHT, palette.BACKGROUND_LIGHT),
    "dark": (palette.DARK, palette.GREY_DARK, palette.BACKGROUND_DARK),
}


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson 2020, https://bottosson.github.io/posts/oklab."""
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
              [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.array(to_lab) @ np.cbrt(np.clip(np.array(to_lms) @ rgb, 0, None))


def luminance(colour: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_are_told_apart(theme: str, deficiency: str) -> None:
    colours, grey, _ = THEMES[theme]
    seen = {c: oklab(np.clip(np.array(DEFICIENCIES[deficiency]) @ linear(c), 0, 1)) for c in (*colours, grey)}
    distances = {(a, b): float(np.linalg.norm(seen[a] - seen[b])) for a, b in combinations(seen, 2)}
    # 0.02 in OKLab is about one just noticeable difference of patches side by side.
    assert min(distances.values()) >= 0.1, min(distances, key=lambda pair: distances[pair])


@pytest.mark.parametrize("theme", THEMES)
def test_every_colour_stands_out_from_the_background(theme: str) -> None:
    colours, grey, background = THEMES[theme]
    for colour in (*colours, grey):
        low, high = sorted((luminance(colour), luminance(background)))
        assert (high + 0.05) / (low + 0.05) >= 3.0, colour
