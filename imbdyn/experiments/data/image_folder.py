"""A folder of images, a subfolder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imbdyn.experiments.data._files import folder
from imbdyn.experiments.data._images import decode
from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import SplitData, of_images, split_off
from imbdyn.experiments.errors import DataError, require

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Source):
    """`image_folder`: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png (or val), or PATH/CLASS/*.png.

    All images are kept in memory, as bytes.
    """

    name: str = "image_folder"
    path: str
    size: int = 32
    """Images are resized to size x size pixels."""
    channels: int = 3
    """3: RGB, 1: grey."""
    test_share: float = 0.3
    """Share of the samples that is held out, stratified by class, where there is no folder of test images."""

    def __post_init__(self) -> None:
        require(self.size >= 1, "data.size must be at least 1", self.size)
        require(self.channels in (1, 3), "data.channels must be 1 or 3", self.channels)
        require(0.0 < self.test_share < 1.0, "data.test_share must be above 0 and below 1", self.test_share)

    @property
    def seeded(self) -> bool:
        """Whether there is no folder of test images."""
        return not (Path(self.path).expanduser() / "train").is_dir()

    def load(self, seed: int) -> SplitData:
        """Return images [N, channels, size, size] and their labels. Raises: DataError, MissingPackageError."""
        where = folder(self.path, "data.path")
        if self.seeded:
            names = _class_names(where)
            return SplitData(*split_off(*self._read(where, names), self.test_share, seed), names)
        test = next((where / name for name in ("test", "val") if (where / name).is_dir()), None)
        if test is None:
            raise DataError(f"{where} has a folder train, so it must have one called test or val")
        names = _class_names(where / "train")
        return of_images(self._read(where / "train", names), self._read(test, names), names)

    def _read(self, where: Path, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        for class_id, name in enumerate(names):
            for path in sorted((where / name).rglob("*")):
                if path.suffix.lower() in _SUFFIXES:
                    content = path.read_bytes()
                    images.append(decode(content, str(path), channels=self.channels, size=self.size))
                    labels.append(class_id)
        if not images:
            raise DataError(f"{where} must have images in a folder a class ({', '.join(names[:5])}), and has none")
        return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def _class_names(where: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in where.iterdir() if path.is_dir() and not path.name.startswith(".")))
