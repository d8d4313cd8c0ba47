"""A file of MedMNIST (Yang et al. 2023): arrays of images and labels in one npz."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from imbdyn.experiments.data._files import file
from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import SplitData, of_images
from imbdyn.experiments.errors import DataError

#: An array that claims more bytes is refused before memory is taken for it (the largest 2D set has 0.6 GB).
_MOST_BYTES = 1 << 33


@dataclass(frozen=True, kw_only=True)
class MedMnist(Source):
    """`medmnist`: a file such as dermamnist.npz, of 2D images with one label each. Validation images are not used."""

    name: str = "medmnist"
    path: str

    def load(self, seed: int) -> SplitData:  # noqa: ARG002
        """Return images [N, 1 or 3, H, W] and their labels. Raises: DataError."""
        path = file(self.path, "data.path")
        try:
            with zipfile.ZipFile(path) as archive:
                train, test = (_pair(archive, path, split) for split in ("train", "test"))
        # A hostile archive makes zipfile and numpy raise any of these.
        except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path} is no npz file that can be read: {error}") from error
        classes = int(max(train[1].max(), test[1].max())) + 1
        return of_images(train, test, tuple(str(c) for c in range(classes)))


def _pair(archive: zipfile.ZipFile, path: Path, split: str) -> tuple[Tensor, Tensor]:
    images, labels = _array(archive, path, f"{split}_images"), _array(archive, path, f"{split}_labels")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(
            f"{split}_images of {path} must be bytes [N, H, W] or [N, H, W, 3], got {images.dtype} {list(images.shape)}"
        )
    if labels.ndim == 2 and labels.shape[1] != 1:
        raise DataError(f"{split}_labels of {path} must be one label an image, got {labels.shape[1]}")
    if labels.dtype.kind not in "ui" or labels.size != len(images) or not len(images):
        raise DataError(
            f"{split}_labels of {path} must be {len(images)} whole numbers, got {labels.dtype} {list(labels.shape)}"
        )
    pixels = torch.from_numpy(images)
    pixels = pixels.unsqueeze(1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(labels.reshape(-1).astype(np.int64))


def _array(archive: zipfile.ZipFile, path: Path, name: str) -> np.ndarray[Any, Any]:
    """Read one array; unlike np.load it looks at the header's claim before it takes memory for it."""
    if f"{name}.npy" not in archive.namelist():
        raise DataError(f"{path} must have an array {name}, and has {', '.join(archive.namelist()[:8]) or 'none'}")
    with archive.open(f"{name}.npy") as member:
        claimed = _claimed_bytes(member)
    if claimed > min(_MOST_BYTES, archive.getinfo(f"{name}.npy").file_size):
        raise DataError(f"{name} of {path} claims {claimed} bytes, more than there are: it is damaged or cut short")
    with archive.open(f"{name}.npy") as member:
        array: np.ndarray[Any, Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _claimed_bytes(member: IO[bytes]) -> int:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return int(np.prod(shape, dtype=object)) * dtype.itemsize
