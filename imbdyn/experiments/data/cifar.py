"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as Parquet files of encoded images or as the binary version.

The Python version of CIFAR is pickled, and is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from imbdyn.experiments.data._files import folder
from imbdyn.experiments.data._images import decode
from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import Scale, SplitData, of_images
from imbdyn.experiments.errors import DataError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: As in LDAM's code and most others, for both sets. (The deviation is the mean of the images' own, not that of all
#: pixels.)
_SCALE = Scale(
    torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None], torch.tensor([0.2023, 0.1994, 0.2010])[:, None, None]
)


@dataclass(frozen=True, kw_only=True)
class Cifar(Source):
    """`cifar10`, `cifar100`: a folder with train*.parquet and test*.parquet, or with the binary version's .bin files.

    Parquet as the usual hubs keep it: a column `img` or `image` of {bytes, path}, and `label`, or `fine_label` for
    CIFAR-100. It may lie in subfolders.
    """

    path: str

    def load(self, seed: int) -> SplitData:  # noqa: ARG002
        """Return images [N, 3, 32, 32] and their labels. Raises: DataError, MissingPackageError."""
        where, classes = folder(self.path, "data.path"), 10 if self.name == "cifar10" else 100
        if any(where.rglob("*.parquet")):
            train, test = (_read_parquet(where, split) for split in ("train", "test"))
        elif any(where.rglob("*.bin")):
            train, test = (_read_binary(where, split, classes) for split in ("train", "test"))
        else:
            raise DataError(
                f"{where} must hold {self.name} as Parquet files (train*.parquet, test*.parquet) or as the binary "
                "version (*.bin); the pickled Python version is not read"
            )
        names = _CIFAR10_NAMES if classes == 10 else tuple(str(c) for c in range(classes))
        return of_images(train, test, names, _SCALE)


def _read_parquet(where: Path, split: str) -> tuple[Tensor, Tensor]:
    files = sorted(where.rglob(f"{split}*.parquet"))
    if not files:
        raise DataError(f"{where} must hold {split}*.parquet, and holds none")
    images, labels = [], []
    for path in files:
        rows, image, label = _columns(path)
        for index, encoded in enumerate(rows[image].to_pylist()):
            content = encoded.get("bytes") if isinstance(encoded, dict) else encoded
            if not isinstance(content, bytes):
                raise DataError(f"{path} has no bytes of an image in row {index} of its column {image}")
            pixels = decode(content, f"row {index} of {path}", channels=3)
            if pixels.shape != (3, _SIDE, _SIDE):
                raise DataError(f"row {index} of {path} must be an image of 32 x 32 pixels, got {pixels.shape[1:]}")
            images.append(pixels)
        labels += rows[label].to_pylist()
    return torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.int64)


def _columns(path: Path) -> tuple[pa.Table, str, str]:
    """Return images and labels of a Parquet file, and what these columns are called in it."""
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        image = next((name for name in ("img", "image") if name in names), None)
        label = next((name for name in ("fine_label", "label") if name in names), None)
        if image is None or label is None:
            raise DataError(f"{path} must have a column img or image, and label or fine_label, got {', '.join(names)}")
        rows = file.read(columns=[image, label])
        if rows.num_rows == 0 or rows[label].null_count or not pa.types.is_integer(rows[label].type):
            raise DataError(f"{path} must have a whole number in every row of its column {label}")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error
    return rows, image, label


def _read_binary(where: Path, split: str, classes: int) -> tuple[Tensor, Tensor]:
    """Read records of a label (CIFAR-100: a coarse one before the fine one) and 3072 pixels, channel by channel."""
    pattern = ("data_batch_*.bin" if split == "train" else "test_batch.bin") if classes == 10 else f"{split}.bin"
    files = sorted(where.rglob(pattern))
    if not files:
        raise DataError(f"{where} must hold {pattern}, and holds none")
    before = 1 if classes == 10 else 2
    parts = []
    for path in files:
        content = np.fromfile(path, dtype=np.uint8)
        if not len(content) or len(content) % (before + _PIXELS):
            raise DataError(
                f"{path} must hold records of {before + _PIXELS} bytes, and has {len(content)} bytes: it is damaged, "
                "cut short or another data set"
            )
        parts.append(content.reshape(-1, before + _PIXELS))
    records = torch.from_numpy(np.concatenate(parts))
    return records[:, before:].reshape(-1, 3, _SIDE, _SIDE).contiguous(), records[:, before - 1].long()
