"""Small files in the formats of the data sources, with known pixels and labels."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int, classes: int) -> np.ndarray:
    """Every class in turn."""
    return np.arange(count, dtype=np.uint8) % classes


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder: Path, *, zipped: bool = False) -> None:
    """20 training and 10 test images of 6x5 pixels, 5 classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        for name, values in (
            (f"{prefix}-images-idx3-ubyte", pixels(count, 6, 5, seed=count)),
            (f"{prefix}-labels-idx1-ubyte", labels(count, 5)),
        ):
            content = idx(values)
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)


def png(image: np.ndarray) -> bytes:
    """Encode uint8 [H, W] or [H, W, 3], without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_cifar_parquet(folder: Path, *, image: str = "img", label: str = "label", classes: int = 10) -> None:
    """30 training images in two files, 10 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train-00000-of-00002", 20), ("train-00001-of-00002", 10), ("test-00000-of-00001", 10)):
        rows = [{"bytes": png(x), "path": f"{i}.png"} for i, x in enumerate(pixels(count, 32, 32, 3, seed=count))]
        table = pa.table({image: rows, label: pa.array(labels(count, classes).tolist(), pa.int64())})
        pq.write_table(table, folder / f"{name}.parquet")


def write_cifar_binary(folder: Path, *, classes: int = 10) -> None:
    """20 training images (CIFAR-10: in two files), 10 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"data_batch_1.bin": 10, "data_batch_2.bin": 10, "test_batch.bin": 10}
    for name, count in (files if classes == 10 else {"train.bin": 100, "test.bin": 100}).items():
        fine = labels(count, classes)[:, None]
        before = [fine] if classes == 10 else [fine // 5, fine]
        image = pixels(count, 3, 32, 32, seed=count).reshape(count, -1)
        (folder / name).write_bytes(np.concatenate([*before, image], axis=1).astype(np.uint8).tobytes())


def write_image_folder(folder: Path, *, split: bool = True) -> None:
    """Classes "cat" (6 images) and "dog" (3), grey or coloured, of several sizes."""
    for part in ("train", "test") if split else ("",):
        for name, count in (("cat", 6), ("dog", 3)):
            where = folder / part / name
            where.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                shape = (5 + i, 7, 3) if i % 2 else (5 + i, 7)
                (where / f"{i}.png").write_bytes(png(pixels(1, *shape, seed=i)[0]))
            (where / "notes.txt").write_text("no image", encoding="utf-8")


def write_medmnist(path: Path, *, colour: bool = False) -> None:
    """12 training, 3 validation and 6 test images of 7x7 pixels, 3 classes."""
    shape = (7, 7, 3) if colour else (7, 7)
    arrays = {}
    for split, count in (("train", 12), ("val", 3), ("test", 6)):
        arrays[f"{split}_images"] = pixels(count, *shape, seed=count)
        arrays[f"{split}_labels"] = labels(count, 3)[:, None]
    np.savez_compressed(path, **arrays)
