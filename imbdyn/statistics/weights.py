"""How a weight moved in one optimizer step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class WeightMotion(NamedTuple):
    """One number a tensor (or a row), each [P]; NaN where the weight or its update is 0."""

    update_ratio: Floats
    """||dw|| / ||w||."""
    cos_weight_update: Floats
    """<w, dw> / (||w|| ||dw||), w after the step."""
    rotation: Floats
    """Angle in radians between w before and after the step (Kosson, Messmer, Jaggi 2024, arXiv 2305.17212)."""


def weight_motion(weight_norm: Floats, update_norm: Floats, dot: Floats) -> WeightMotion:
    """Derive ratio, cosine and rotation from ||w||, ||dw|| and <w, dw>, each [P].

    The angle is atan2(||w|| ||dw|| sin, ||w||^2 - <w, dw>): exact for the small angles of a step, where acos is not.
    """
    w_sq, dw_sq = weight_norm**2, update_norm**2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(weight_norm > 0, update_norm / weight_norm, np.nan)
        cos = np.where(weight_norm * update_norm > 0, dot / (weight_norm * update_norm), np.nan)
    across = np.sqrt(np.maximum(w_sq * dw_sq - dot**2, 0.0))
    along = w_sq - dot
    # dw = w - w_before = 0 and w = 0 leave no direction to measure
    rotation = np.where((w_sq > 0) & (w_sq - 2 * dot + dw_sq > 0), np.arctan2(across, along), np.nan)
    return WeightMotion(ratio, np.clip(cos, -1.0, 1.0), rotation)
