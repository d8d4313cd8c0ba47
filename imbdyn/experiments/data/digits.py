"""Real data without a download: the 1,797 handwritten digits that scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import Split, SplitData
from imbdyn.experiments.errors import MissingPackageError, require


@dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """`digits`: 8x8 pixels, ten classes of about 180 samples (UCI's test set of handwritten digits)."""

    name: str = "digits"
    test_share: float = 0.3
    """Share of the samples that is held out, stratified by class."""

    def __post_init__(self) -> None:
        # Outside of this some class has no sample on one side of the split.
        require(0.01 <= self.test_share <= 0.99, "data.test_share must be 0.01 to 0.99", self.test_share)

    @property
    def seeded(self) -> bool:
        """Always."""
        return True

    def load(self, seed: int) -> SplitData:
        """Return images [N, 1, 8, 8], standardised by the mean and deviation of all training pixels.

        Raises: MissingPackageError if scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise MissingPackageError(
                'the built-in experiment needs the digits of scikit-learn: pip install "imbdyn[run]"'
            ) from error

        digits = load_digits()
        train_images, test_images, train_labels, test_labels = train_test_split(
            digits.images, digits.target, test_size=self.test_share, random_state=seed, stratify=digits.target
        )
        # One mean and one deviation, not one a pixel: the corner pixels are constant.
        mean, deviation = train_images.mean(), train_images.std()

        def images(pixels: object) -> Tensor:
            return torch.as_tensor((pixels - mean) / deviation, dtype=torch.float32).unsqueeze(1)

        return SplitData(
            Split(images(train_images), torch.as_tensor(train_labels, dtype=torch.int64)),
            Split(images(test_images), torch.as_tensor(test_labels, dtype=torch.int64)),
            tuple(str(name) for name in digits.target_names),
        )
