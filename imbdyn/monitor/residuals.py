"""The instrument proves itself: a residual above its threshold is one loud warning. So is a gradient that is NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imbdyn.monitor.problems import Problems
from imbdyn.monitor.reading import Gradients

#: Residuals above these say that a gradient was not read as it is: float32, and bfloat16 or float16 under autocast,
#: where p.grad itself is rounded (differences of 2e-3 to 3e-3 of its norm are right there).
THRESHOLD, THRESHOLD_REDUCED = 1e-4, 2e-2


def warn_of_residuals(step: int, gradients: Gradients, reduced_precision: bool, problems: Problems) -> None:
    """Warn of the parameter whose class gradients miss most of what the optimizer sees."""
    # NaN is a gradient that is NaN: the table shows it, and it must not hide another parameter's residual
    comparable = [name for name, value in gradients.residual.items() if value == value]
    if not comparable:
        return
    worst = max(comparable, key=lambda name: gradients.residual[name])
    threshold = THRESHOLD_REDUCED if reduced_precision else THRESHOLD
    if gradients.residual[worst] > threshold:
        problems.warn(
            "residual",
            f"the class gradients of {worst} do not sum to its gradient at step {step}: residual "
            f"{gradients.residual[worst]:.1e} > {threshold:.0e}; part of the gradient comes from elsewhere (a penalty, "
            "a batch without labels, gradients left over from an earlier step), or gradients were thrown away in "
            "a monitor.batch (zero_grad between two backward passes), or they were changed after the backward pass by "
            "more than one common factor (clip_grad_value_, clipping by layer, hooks)",
        )


def warn_of_divergence(step: int, names: Sequence[str], gradients: Gradients, problems: Problems) -> None:
    """Warn of the first of the parameters `names` [P] whose gradient is not finite, as the optimizer applies it."""
    diverged = np.flatnonzero(~np.isfinite(gradients.grad_norm))
    if len(diverged):
        problems.warn(
            "not finite",
            f"the gradient of {names[diverged[0]]} is not finite at step {step}, and the optimizer applies it: from "
            "then on the trace is of a network that has diverged",
        )
