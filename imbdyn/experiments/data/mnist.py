"""MNIST's own IDX files, and those of the sets that come as MNIST does: Fashion-MNIST, KMNIST, EMNIST.

Format: http://yann.lecun.com/exdb/mnist. Two bytes of zero, the type of the values (8: unsigned bytes), the number of
axes, each axis's length as a big-endian uint32, and the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from imbdyn.experiments.data._files import folder, only_one
from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import SplitData, of_images
from imbdyn.experiments.errors import DataError

#: A file that claims more values than this is no MNIST (that has 47 million).
_MOST_VALUES = 1 << 32
_UNSIGNED_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Mnist(Source):
    """`mnist`: a folder with the four IDX files, gzipped or not, under their usual names."""

    name: str = "mnist"
    path: str

    def load(self, seed: int) -> SplitData:  # noqa: ARG002
        """Return images [N, 1, H, W] and their labels. Raises: DataError."""
        where = folder(self.path, "data.path")
        train, test = _pair(where, "train"), _pair(where, "t10k", "test")
        classes = int(max(train[1].max(), test[1].max())) + 1
        return of_images(train, test, tuple(str(c) for c in range(classes)))


def _pair(where: Path, *prefixes: str) -> tuple[Tensor, Tensor]:
    def find(kind: str, axes: str) -> Path:
        found = {path for prefix in prefixes for path in where.glob(f"*{prefix}*{kind}*ubyte*")}
        unpacked = {path for path in found if path.suffix != ".gz"}
        return only_one(unpacked or found, where, f"{prefixes[0]}-{kind}-{axes}-ubyte")

    images_file, labels_file = find("images", "idx3"), find("labels", "idx1")
    images, labels = read_idx(images_file, axes=3), read_idx(labels_file, axes=1)
    if len(images) != len(labels):
        raise DataError(f"{images_file} has {len(images)} images, and {labels_file} {len(labels)} labels")
    return images.unsqueeze(1), labels.long()


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: Path, axes: int) -> Tensor:
    """Read an IDX file of unsigned bytes: uint8, with so many axes.

    Raises: DataError if it is another file, or cut short.
    """
    try:
        with path.open("rb") as file:
            return _parse(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file, path, axes)
    except (OSError, EOFError, zlib.error, struct.error) as error:  # gzip raises each of them
        raise DataError(f"{path} cannot be read: {error}") from error


def _parse(file: _Readable, path: Path, axes: int) -> Tensor:
    head = file.read(4)
    if head != bytes([0, 0, _UNSIGNED_BYTES, axes]):
        raise DataError(
            f"{path} is no IDX file of unsigned bytes with {axes} axes: it begins with {head.hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{axes}I", file.read(4 * axes))
    values = math.prod(shape)
    if not 0 < values <= _MOST_VALUES:
        raise DataError(f"{path} claims to hold {' x '.join(map(str, shape))} values")
    content = file.read(values + 1)
    if len(content) != values:
        found = "more" if len(content) > values else f"only {len(content)}"
        raise DataError(f"{path} should hold {values} values and holds {found}: it is damaged or cut short")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)
