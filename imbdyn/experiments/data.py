"""Real data without a download: the 1,797 handwritten digits that scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class MissingDataError(RuntimeError):
    """The package that holds the data is not installed."""


@dataclass(frozen=True)
class ImageData:
    """Images with labels, split in two; C classes, pixels standardised by the training split's mean and deviation."""

    train_images: Tensor
    """float32 [N, 1, 8, 8]."""
    train_labels: Tensor
    """int64 [N], each in 0..C-1."""
    test_images: Tensor
    """float32 [M, 1, 8, 8]."""
    test_labels: Tensor
    """int64 [M]."""
    class_names: tuple[str, ...]
    """C names."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def train_counts(self) -> list[int]:
        """Return the training samples of each class."""
        return torch.bincount(self.train_labels, minlength=self.num_classes).tolist()


def load_digits(test_share: float, seed: int) -> ImageData:
    """Load the digits and split them, stratified by class.

    Args:
        test_share: share of the samples that is held out, between 0 and 1.
        seed: decides which.

    Raises:
        MissingDataError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as sklearn_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingDataError(
            'the built-in experiment needs the digits of scikit-learn: pip install "imbdyn[run]"'
        ) from error

    digits = sklearn_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.images, digits.target, test_size=test_share, random_state=seed, stratify=digits.target
    )
    # One mean and one deviation, not one a pixel: the corner pixels are constant.
    mean, deviation = train_images.mean(), train_images.std()

    def images(pixels: object) -> Tensor:
        return torch.as_tensor((pixels - mean) / deviation, dtype=torch.float32).unsqueeze(1)

    return ImageData(
        images(train_images),
        torch.as_tensor(train_labels, dtype=torch.int64),
        images(test_images),
        torch.as_tensor(test_labels, dtype=torch.int64),
        tuple(str(name) for name in digits.target_names),
    )
