"""Files that are cut short, damaged, or made to do harm: one sentence that names the file, and nothing is run."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_data import (
    idx,
    labels,
    pixels,
    png,
    write_cifar_binary,
    write_cifar_parquet,
    write_image_folder,
    write_medmnist,
    write_mnist,
)

from imbdyn.experiments.data import Source
from imbdyn.experiments.data.cifar import Cifar
from imbdyn.experiments.data.image_folder import ImageFolder
from imbdyn.experiments.data.medmnist import MedMnist
from imbdyn.experiments.data.mnist import Mnist
from imbdyn.experiments.data.table import Table
from imbdyn.experiments.errors import DataError


def refusal(source: Source) -> str:
    """Return the sentence with which data are refused."""
    with pytest.raises(DataError) as error:
        source.load(seed=0)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    proof, bomb = tmp_path / "exploded", pickle.dumps(Bomb(tmp_path / "exploded"))
    python_version = tmp_path / "cifar-10-batches-py"
    python_version.mkdir()
    (python_version / "data_batch_1").write_bytes(bomb)
    message = refusal(Cifar(name="cifar10", path=str(python_version)))
    assert "the pickled Python version is not read" in message

    np.savez(tmp_path / "x.npz", train_images=np.array([Bomb(proof)], dtype=object))
    assert "Object arrays cannot be loaded" in refusal(MedMnist(path=str(tmp_path / "x.npz")))
    for name in ("x.csv", "x.parquet", "y.npz"):
        (tmp_path / name).write_bytes(bomb)
        source = MedMnist(path=str(tmp_path / name)) if name == "y.npz" else Table(path=str(tmp_path / name), label="y")
        assert str(tmp_path / name) in refusal(source)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], "should hold 600 values and holds only 599: it is damaged or cut short"),
        (lambda whole: whole + b"x", "should hold 600 values and holds more"),
        (lambda whole: whole[:10], "cannot be read: "),
        (lambda _: b"", "begins with nothing"),
        (lambda whole: b"PK\x03\x04" + whole, "is no IDX file of unsigned bytes with 3 axes: it begins with 504b0304"),
        (lambda _: idx(np.zeros(4, np.uint8)), "it begins with 00000801"),
        (lambda whole: whole[:4] + struct.pack(">3I", 2**31, 2**31, 2**31), "claims to hold 2147483648 x"),
        (lambda whole: whole[:4] + struct.pack(">3I", 0, 6, 5), "claims to hold 0 x 6 x 5 values"),
        (lambda whole: whole[:4] + struct.pack(">3I", 2**20, 32, 32) + whole[16:], "holds only 600"),
    ],
)
def test_idx(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    found = refusal(Mnist(path=str(tmp_path)))
    assert message in found
    assert str(path) in found


def test_gzip(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"not gzip", whole[:20] + bytes(20) + whole[40:], b""):
        path.write_bytes(damaged)
        assert str(path) in refusal(Mnist(path=str(tmp_path)))
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 2, 3) + bytes(10_000_000)))
    assert "should hold 6 values and holds more" in refusal(Mnist(path=str(tmp_path)))


def test_images_and_labels_that_do_not_belong_together(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels(11, 5)))
    assert "has 10 images, and" in refusal(Mnist(path=str(tmp_path)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(pixels(11, 6, 6)))
    assert "training and test images need one shape, got [1, 6, 5] and [1, 6, 6]" in refusal(Mnist(path=str(tmp_path)))
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    assert "must hold one file such as t10k-images-idx3-ubyte, and holds none" in refusal(Mnist(path=str(tmp_path)))


def test_cifar_binary(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path)
    path, source = tmp_path / "data_batch_2.bin", Cifar(name="cifar10", path=str(tmp_path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"{path} must hold records of 3073 bytes, and has {len(whole) - 1} bytes" in refusal(source)
    path.write_bytes(b"\xff" + whole[1:])
    assert "a label of 10 classes is 0 to 9, got 255" in refusal(source)
    (tmp_path / "test_batch.bin").unlink()
    path.write_bytes(whole)
    assert "must hold test_batch.bin, and holds none" in refusal(source)


def rewritten(path: Path, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": [{"bytes": b"no image", "path": ""}], "label": [1]}, "row 0 of PATH is no image that can be read"),
        ({"img": [{"bytes": png(pixels(1, 32, 32, 3)[0])[:-40]}], "label": [1]}, "row 0 of PATH is no image"),
        ({"img": [{"bytes": png(pixels(1, 31, 32, 3)[0])}], "label": [1]}, "of 32 x 32 pixels, got (31, 32)"),
        ({"img": [{"bytes": None}], "label": [1]}, "has no bytes of an image in row 0 of its column img"),
        ({"img": [None], "label": [1]}, "has no bytes of an image in row 0 of its column img"),
        ({"img": [3], "label": [1]}, "has no bytes of an image in row 0 of its column img"),
        ({"img": [{"bytes": png(pixels(1, 32, 32, 3)[0])}], "label": [None]}, "must have a whole number in every row"),
        ({"img": [{"bytes": png(pixels(1, 32, 32, 3)[0])}], "label": ["cat"]}, "must have a whole number in every"),
        ({"picture": [1], "label": [1]}, "img or image, and label or fine_label, got picture, label"),
    ],
)  # fmt: skip
def test_cifar_parquet(tmp_path: Path, columns, message) -> None:
    write_cifar_parquet(tmp_path)
    path = tmp_path / "train-00000-of-00002.parquet"
    rewritten(path, **columns)
    assert message.replace("PATH", str(path)) in refusal(Cifar(name="cifar10", path=str(tmp_path)))


def test_a_parquet_file_that_is_cut_short(tmp_path: Path) -> None:
    write_cifar_parquet(tmp_path)
    path = tmp_path / "train-00001-of-00002.parquet"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", bytes(100)):
        path.write_bytes(damaged)
        assert str(path) in refusal(Cifar(name="cifar10", path=str(tmp_path)))


def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    path, whole = tmp_path / "train" / "cat" / "0.png", png(pixels(1, 4, 4)[0])
    header = struct.pack(">2I", 100_000, 100_000) + whole[24:29]
    import zlib

    path.write_bytes(whole[:16] + header + struct.pack(">I", zlib.crc32(whole[12:16] + header)) + whole[33:])
    assert str(path) in refusal(ImageFolder(path=str(tmp_path)))
    header = struct.pack(">2I", 9_000, 9_000) + whole[24:29]  # Pillow would only warn
    path.write_bytes(whole[:16] + header + struct.pack(">I", zlib.crc32(whole[12:16] + header)) + whole[33:])
    assert "has 9000 x 9000 pixels, more than" in refusal(ImageFolder(path=str(tmp_path)))


def test_image_folders_that_are_none(tmp_path: Path) -> None:
    assert (
        refusal(ImageFolder(path=str(tmp_path / "x")))
        == f"data.path must be a folder, and {tmp_path / 'x'} does not exist"
    )
    assert "must have images in a folder a class" in refusal(ImageFolder(path=str(tmp_path)))
    write_image_folder(tmp_path)
    for path in (tmp_path / "test").rglob("*"):
        if path.is_file():
            path.unlink()
    assert f"{tmp_path / 'test'} must have images in a folder a class (cat, dog)" in refusal(
        ImageFolder(path=str(tmp_path))
    )


def member(name: str, content: bytes) -> Callable[[Path], None]:
    """Return what replaces one array of an npz file."""

    def replace(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            kept = {n: archive.read(n) for n in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for other, bytes_ in {**kept, f"{name}.npy": content}.items():
                archive.writestr(other, bytes_)

    return replace


def npy(array: np.ndarray, claimed: tuple[int, ...] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    if claimed is None:
        return content
    before = f"'shape': {array.shape}".encode()
    after = f"'shape': {claimed}".encode()
    header = content[10:128].replace(before, after).rstrip()
    return content[:10] + header.ljust(117) + b"\n" + content[128:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is no npz file that can be read"),
        (lambda path: path.write_bytes(b""), "is no npz file that can be read"),
        (member("train_images", b"no array"), "is no npz file that can be read"),
        (member("train_images", npy(pixels(12, 7, 7))[:-1]), "expected 588 bytes got 587"),
        (member("train_images", npy(pixels(12, 7, 7), (10**12, 7, 7))), "claims 49000000000000 bytes, more than"),
        (member("train_images", npy(pixels(12, 7, 7), (-1, 7, 7))), "is no npz file that can be read"),
        (member("train_images", npy(np.zeros((12, 7, 7)))), "must be bytes [N, H, W] or [N, H, W, 3], got float64"),
        (member("train_images", npy(pixels(12, 7, 7, 7, 1))), "must be bytes [N, H, W] or [N, H, W, 3]"),
        (member("train_labels", npy(np.zeros((12, 14), np.uint8))), "must be one label an image, got 14"),
        (member("train_labels", npy(np.zeros((11, 1), np.uint8))), "must be 12 whole numbers, got uint8 [11, 1]"),
        (member("train_labels", npy(np.array([["a"]] * 12))), "must be 12 whole numbers"),
    ],
)  # fmt: skip
def test_npz(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.npz"
    write_medmnist(path)
    damage(path)
    found = refusal(MedMnist(path=str(path)))
    assert message in found
    assert str(path) in found


def test_an_array_that_is_not_there_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(3, 2, 2))
    assert "must have an array train_images, and has images.npy" in refusal(MedMnist(path=str(tmp_path / "x.npz")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no CSV file that can be read"),
        ("a,y\n1,2\n1,2,3\n", "is no CSV file that can be read"),
        ("a,z\n1,2\n", "has no column y"),
        ("a,label\n1,2\n", "has no column y"),
        ("y\n1\n2\n", "has no column but y: there are no inputs"),
        ("a,y\n1,0\n,0\n3,1\n3,1\n", "column a of PATH has 1 gaps (or infinite values)"),
        ("a,y\n1,0\ninf,0\n3,1\n3,1\n", "column a of PATH has 1 gaps (or infinite values)"),
        ("a,y\nx,0\nz,0\n3,1\n3,1\n", "must be numbers, got string: encode it, or name it in data.drop"),
        ("a,y\n1,0\n2,0\n3,\n3,1\n", "every row needs a label, and 1 of column y of PATH have none"),
        ("a,y\n1,0\n2,0\n3,1\n", "a class needs 2 samples, one of them to hold out"),
        ("a,y\n1,0\n2,0\n", "data need at least 2 classes, got 0"),
        ("a,y\n" + "".join(f"1,{i}\n" for i in range(10_001)), "has 10001 different values, too many for classes"),
    ],
)  # fmt: skip
def test_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    assert message.replace("PATH", str(path)) in refusal(Table(path=str(path), label="y"))


def test_a_mistyped_column_is_told_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("amount,Class\n1,0\n", encoding="utf-8")
    assert "has no column class; the nearest known one is Class" in refusal(Table(path=str(path), label="class"))
    assert "has no column amuont; the nearest known one is amount" in refusal(
        Table(path=str(path), label="Class", drop=("amuont",))
    )
