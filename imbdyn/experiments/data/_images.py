"""Encoded images become arrays. Pillow is loaded when the first one is decoded."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np

from imbdyn.experiments.errors import DataError, MissingPackageError

#: The formats that are decoded; Pillow knows others that nobody keeps a data set in.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
#: An image of more pixels is refused before it is decoded.
_MOST_PIXELS = 1 << 26


def decode(encoded: bytes, where: str, *, channels: int, size: int | None = None) -> np.ndarray[Any, Any]:
    """Decode an image.

    Args:
        encoded: the bytes of a file.
        where: what messages call it.
        channels: 3 for RGB, 1 for grey.
        size: resize it to size x size pixels (bilinear).

    Returns: uint8 [channels, H, W].
    Raises: DataError if it is none, or damaged; MissingPackageError if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError('decoding images needs Pillow: pip install "imbdyn[images]"') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(encoded), formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise DataError(f"{where} has {image.width} x {image.height} pixels, more than {_MOST_PIXELS}")
                pixels = image.convert("RGB" if channels == 3 else "L")
    # A hostile file makes Pillow raise any of these.
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{where} is no image that can be read: {error}") from error
    if size is not None:
        pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(pixels)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
