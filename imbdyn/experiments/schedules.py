"""The learning rate over epochs, as a factor of `train.lr`."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

#: What the learning rate can do after the warm-up.
SCHEDULES = ("constant", "step", "cosine")


def lr_factor(
    schedule: str, epoch: int, epochs: int, *, warmup: int = 0, milestones: Sequence[int] = (), decay: float = 0.1
) -> float:
    """Return what the learning rate of an epoch, 1 to `epochs`, is multiplied with.

    In the w = `warmup` first epochs it is epoch / w (Goyal et al. 2017, arXiv 1706.02677). After them

    - "constant": 1;
    - "step": decay^m, m the number of `milestones` before this epoch. With 160 and 180 and a decay of 0.01 this is
      LDAM's code (Cao et al. 2019, arXiv 1906.07413);
    - "cosine": (1 + cos(pi (epoch - w - 1) / (epochs - w))) / 2, from 1 to almost 0 (Loshchilov and Hutter 2017,
      arXiv 1608.03983, without restarts).
    """
    if epoch <= warmup:
        return epoch / warmup
    if schedule == "step":
        return float(decay ** sum(epoch > milestone for milestone in milestones))
    if schedule == "cosine":
        return (1.0 + cos(pi * (epoch - warmup - 1) / (epochs - warmup))) / 2.0
    return 1.0
