"""The base of all sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from imbdyn.experiments.data.split import SplitData


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Base of the sources: the fields are the keys of the section [data]."""

    name: str

    @property
    def seeded(self) -> bool:
        """Whether the seed decides which samples are held out; otherwise `load` gives the same data for every seed."""
        return False

    @abstractmethod
    def load(self, seed: int) -> SplitData:
        """Return the samples, those held out apart.

        Raises:
            DataError: if they are not there, or not what they should be.
            MissingPackageError: if a package is missing that holds or reads them.
        """
