"""How many samples each class keeps, and which classes are rare: profiles of imbalance, and the choice of samples.

A profile gives counts by rank, from the most frequent class down; n is the size of the smallest class there is, so that
nothing but the profile makes classes unequal. The imbalance ratio IR is the largest count over the smallest. Which
class gets which rank is drawn from the seed: the class that is rare must not always be the class that is hard.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.experiments.errors import ConfigError, require
from imbdyn.experiments.registry import Registry


class Imbalance(NamedTuple):
    """What a profile comes to on the data at hand."""

    counts: list[int]
    """Training samples of each class, C numbers."""
    rare: list[int]
    """The classes that count as rare, ascending."""


@dataclass(frozen=True, kw_only=True)
class Profile(ABC):
    """Base of the profiles: the fields are the keys of the section [imbalance]."""

    profile: str

    @abstractmethod
    def apply(self, available: Sequence[int], seed: int) -> Imbalance:
        """Return the counts, given the samples that there are of each class; `seed` draws the rare classes.

        Raises: ConfigError if the data do not allow it.
        """


@dataclass(frozen=True, kw_only=True)
class Natural(Profile):
    """The data as they are."""

    profile: str = "natural"

    def apply(self, available: Sequence[int], seed: int) -> Imbalance:  # noqa: ARG002
        """Return what there is."""
        return Imbalance(list(available), nearer_to_the_smallest(available))


@dataclass(frozen=True, kw_only=True)
class Ranked(Profile):
    """Base of the profiles that give counts by rank."""

    rotate: bool = True
    """Whether the seed draws the classes' ranks; otherwise class 0 is the most frequent one, as in LDAM's code."""

    @abstractmethod
    def by_rank(self, most: int, num_classes: int) -> list[int]:
        """Return C counts in descending order, of which the first is at most `most`."""

    def apply(self, available: Sequence[int], seed: int) -> Imbalance:
        """Give every class the count of its rank."""
        num_classes, most = len(available), min(available)
        by_rank = self.by_rank(most, num_classes)
        if by_rank[-1] < 1:
            raise ConfigError(
                f"imbalance must leave every class a sample: with {most} of the most frequent one this profile gives "
                f"the {num_classes} classes {_listed(by_rank)}"
            )
        ranked = classes_by_rank(num_classes, seed) if self.rotate else list(range(num_classes))
        counts = dict(zip(ranked, by_rank, strict=True))
        return self._imbalance([counts[c] for c in range(num_classes)], ranked)

    def _imbalance(self, counts: list[int], ranked: list[int]) -> Imbalance:  # noqa: ARG002
        return Imbalance(counts, nearer_to_the_smallest(counts))


@dataclass(frozen=True, kw_only=True)
class Step(Ranked):
    """`step`: some classes keep round(n / ratio) samples (at least 1), the others n.

    Buda et al. 2018, arXiv 1710.05381, with mu = `fraction`.
    """

    profile: str = "step"
    ratio: float
    fraction: float = 0.5
    """Share of the classes that is rare, rounded to a whole number of classes."""
    num_rare: int | None = None
    """How many classes are rare, in place of `fraction`."""

    def __post_init__(self) -> None:
        require(self.ratio >= 1.0, "imbalance.ratio must be at least 1", self.ratio)
        require(0.0 < self.fraction < 1.0, "imbalance.fraction must be above 0 and below 1", self.fraction)
        require(self.num_rare is None or self.num_rare >= 1, "imbalance.num_rare must be at least 1", self.num_rare)

    def by_rank(self, most: int, num_classes: int) -> list[int]:
        """Return n (C - k times) and n / ratio (k times)."""
        rare = self.rare_among(num_classes)
        require(self.ratio <= most, f"imbalance.ratio must leave a rare class 1 of its {most} samples", self.ratio)
        return [most] * (num_classes - rare) + [max(1, round(most / self.ratio))] * rare

    def rare_among(self, num_classes: int) -> int:
        """Return k, the number of rare classes."""
        rare = self.num_rare if self.num_rare is not None else max(1, round(self.fraction * num_classes))
        key = "num_rare" if self.num_rare is not None else "fraction"
        require(
            rare < num_classes,
            f"imbalance.{key} must make 1 to {num_classes - 1} of the {num_classes} classes rare",
            rare,
        )
        return rare

    def _imbalance(self, counts: list[int], ranked: list[int]) -> Imbalance:
        # Not by their counts, which are all alike at a ratio of 1.
        return Imbalance(counts, sorted(ranked[len(counts) - self.rare_among(len(counts)) :]))


@dataclass(frozen=True, kw_only=True)
class Exponential(Ranked):
    """`exponential`: the class of rank r = 0 ... C-1 keeps int(n (1 / ratio)^(r / (C - 1))) samples.

    Long-tailed CIFAR of Cui et al. 2019, arXiv 1901.05555, with the counts of LDAM's imbalance_cifar.py.
    """

    profile: str = "exponential"
    ratio: float

    def __post_init__(self) -> None:
        require(self.ratio >= 1.0, "imbalance.ratio must be at least 1", self.ratio)

    def by_rank(self, most: int, num_classes: int) -> list[int]:
        """Return the counts of the formula."""
        factor = 1.0 / self.ratio
        return [int(most * factor ** (rank / (num_classes - 1.0))) for rank in range(num_classes)]


@dataclass(frozen=True, kw_only=True)
class Zipf(Ranked):
    """`zipf`: the class of rank r = 1 ... C keeps int(n r^-exponent) samples, so that IR is about C^exponent."""

    profile: str = "zipf"
    exponent: float

    def __post_init__(self) -> None:
        require(self.exponent >= 0.0, "imbalance.exponent must be at least 0", self.exponent)

    def by_rank(self, most: int, num_classes: int) -> list[int]:
        """Return the counts of the formula."""
        return [int(most * rank**-self.exponent) for rank in range(1, num_classes + 1)]


@dataclass(frozen=True, kw_only=True)
class Counts(Ranked):
    """`counts`: these numbers, one a class; with `rotate` the seed draws which class gets which."""

    profile: str = "counts"
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        require(all(count >= 1 for count in self.counts), "imbalance.counts must be at least 1", list(self.counts))

    def by_rank(self, most: int, num_classes: int) -> list[int]:
        """Return the numbers, the largest first."""
        del most
        self._check(num_classes)
        return sorted(self.counts, reverse=True)

    def apply(self, available: Sequence[int], seed: int) -> Imbalance:
        """Give every class its number."""
        if self.rotate:
            chosen = super().apply(available, seed)
        else:
            self._check(len(available))
            chosen = Imbalance(list(self.counts), nearer_to_the_smallest(self.counts))
        for class_id, (count, there) in enumerate(zip(chosen.counts, available, strict=True)):
            require(count <= there, f"imbalance.counts must leave class {class_id} at most its {there} samples", count)
        return chosen

    def _check(self, num_classes: int) -> None:
        require(
            len(self.counts) == num_classes,
            f"imbalance.counts must be {num_classes} numbers, a class each",
            list(self.counts),
        )


#: What `imbalance.profile` can name.
PROFILES: Registry[Profile] = Registry(
    "imbalance.profile",
    Profile,
    {
        "step": "imbdyn.experiments.profiles:Step",
        "exponential": "imbdyn.experiments.profiles:Exponential",
        "zipf": "imbdyn.experiments.profiles:Zipf",
        "counts": "imbdyn.experiments.profiles:Counts",
        "natural": "imbdyn.experiments.profiles:Natural",
    },
)


def classes_by_rank(num_classes: int, seed: int) -> list[int]:
    """Draw the order of the classes, the most frequent one first."""
    generator = torch.Generator().manual_seed(seed)
    rarest_first: list[int] = torch.randperm(num_classes, generator=generator).tolist()
    return rarest_first[::-1]


def nearer_to_the_smallest(counts: Sequence[int]) -> list[int]:
    """Return the classes with at most sqrt(max n_c * min n_c) samples, half-way on a logarithmic scale.

    None if all counts are equal.
    """
    middle = sqrt(max(counts) * min(counts))
    return [c for c, count in enumerate(counts) if count <= middle and count < max(counts)]


def balanced(available: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Give every class as many samples as the most frequent one of the `chosen` counts, or as there are of all."""
    return [min(max(chosen), min(available))] * len(chosen)


def scarce(chosen: Sequence[int]) -> list[int]:
    """Give every class as few samples as the rarest one of the `chosen` counts: the control, balanced and as small."""
    return [min(chosen)] * len(chosen)


def select(labels: Tensor, counts: Sequence[int], seed: int) -> Tensor:
    """Choose `counts[c]` samples of every class c.

    With one seed the choices are nested: what a class keeps at a smaller count it also keeps at a larger one, so that
    a rare class has the same samples in the imbalanced run and in the scarce one.

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


def _listed(counts: Sequence[int]) -> str:
    shown = [str(count) for count in counts]
    return ", ".join(shown if len(shown) <= 10 else [*shown[:5], "...", *shown[-3:]])
