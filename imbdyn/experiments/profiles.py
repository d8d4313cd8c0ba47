"""How many samples each class keeps. Pure functions from counts to counts, and the choice of samples that meets them.

All three start from the smallest class, so that nothing but the profile makes classes unequal. The ratio IR is the
largest count over the smallest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor


def balanced(counts: Sequence[int]) -> list[int]:
    """Give every class n = min(counts) samples."""
    return [min(counts)] * len(counts)


def step(counts: Sequence[int], ratio: float, rare: Collection[int]) -> list[int]:
    """Give the `rare` classes n / ratio samples (rounded, at least 1) and every other class n = min(counts)."""
    few = _cut(min(counts), ratio)
    return [few if class_id in rare else min(counts) for class_id in range(len(counts))]


def scarce(counts: Sequence[int], ratio: float) -> list[int]:
    """Give every class n / ratio samples (rounded, at least 1): as few as the rare ones of `step`, yet balanced."""
    return [_cut(min(counts), ratio)] * len(counts)


def _cut(count: int, ratio: float) -> int:
    return max(1, round(count / ratio))


def choose_rare(num_classes: int, num_rare: int, seed: int) -> list[int]:
    """Draw the classes that become rare: the class that is rare must not always be the class that is hard."""
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(num_classes, generator=generator)[:num_rare].tolist())


def select(labels: Tensor, counts: Sequence[int], seed: int) -> Tensor:
    """Choose `counts[c]` samples of every class c.

    With one seed the choices are nested: what a class keeps at a smaller count it also keeps at a larger one, so that
    a rare class has the same samples under `step` and under `scarce`.

    Args:
        labels: int64 [N].
        counts: how many to keep, one number a class.
        seed: decides which.

    Returns:
        int64 indices into `labels`, ascending.

    Raises:
        ValueError: if a class has fewer samples than it shall keep.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    kept = []
    for class_id, count in enumerate(counts):
        members = order[labels[order] == class_id]
        if count > len(members):
            raise ValueError(f"a class can keep at most its samples: class {class_id} has {len(members)}, not {count}")
        kept.append(members[:count])
    return torch.cat(kept).sort().values
