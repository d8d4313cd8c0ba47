from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from small_data import write_cifar_parquet
from torch import nn
from torch.nn import functional as F

import imbdyn
from imbdyn.experiments.config import experiment
from imbdyn.experiments.errors import ConfigError, MissingPackageError
from imbdyn.experiments.methods.ldam import Ldam
from imbdyn.experiments.models import MODELS, ModelSpec
from imbdyn.experiments.models.cifar_resnet import CifarResNet, CifarResNetSpec
from imbdyn.experiments.models.lenet import LeNetSpec
from imbdyn.experiments.models.mlp import MlpSpec
from imbdyn.experiments.models.small_conv_net import SmallConvNetSpec
from imbdyn.experiments.models.vit import VitSpec
from imbdyn.experiments.run import plan
from imbdyn.experiments.train import train


def built(name: str, shape: tuple[int, ...], classes: int = 10, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.find(name)(name=name, **options).build(shape, classes)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS.names)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_model_takes_images_and_returns_logits(name: str, shape: tuple[int, ...]) -> None:
    logits = built(name, shape, 7)(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    assert logits.std() > 0


def test_resnets_have_the_parameters_of_their_formula() -> None:
    # 16-32-64 channels, n blocks a stage, two 3x3 convolutions and two BatchNorms (scale and shift) a block, option A
    for name, n in (("resnet20", 3), ("resnet32", 5)):
        first = 3 * 16 * 9 + 2 * 16
        stages = sum(
            (2 * n - 1) * (c * c * 9) + before * c * 9 + 2 * n * 2 * c for before, c in ((16, 16), (16, 32), (32, 64))
        )
        assert parameters(built(name, (3, 32, 32))) == first + stages + 64 * 10 + 10
    assert parameters(built("resnet32", (3, 32, 32))) == 464_154, "0.46 million in He et al. 2016, table 6"
    assert parameters(built("resnet20", (3, 32, 32))) == 269_722, "0.27 million"


def test_a_resnets_shortcut_takes_every_second_pixel_and_pads_a_quarter_of_the_channels_on_each_side() -> None:
    torch.manual_seed(0)
    block = CifarResNet(10, 3).blocks[3].eval()
    nn.init.zeros_(block.bn2.weight)  # what is left is the shortcut
    x = torch.rand(2, 16, 8, 8)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert block(x).equal(expected)


def test_a_resnets_weights_are_drawn_by_kaiming_normal() -> None:
    model = built("resnet32", (3, 32, 32))
    weight = model.blocks[14].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert all(parameter.eq(1).all() for name, parameter in model.named_parameters() if ".bn1.weight" in name)


def test_lenet_has_the_layers_of_lenet_5() -> None:
    model = built("lenet", (1, 28, 28))
    widths = [layer.in_features for layer in model if isinstance(layer, nn.Linear)]
    assert widths == [400, 120, 84]
    assert parameters(model) == 61_706


def test_mlp_flattens_whatever_comes() -> None:
    model = built("mlp", (29,), 2, hidden=8, depth=2)
    assert [layer.in_features for layer in model if isinstance(layer, nn.Linear)] == [29, 8, 8]
    assert model(torch.randn(4, 29)).shape == (4, 2)
    assert len(built("mlp", (2, 3), 2, depth=0)) == 2, "a linear model"


def test_vit_sees_where_a_patch_is() -> None:
    model = built("vit", (1, 8, 8)).eval()
    image = torch.zeros(1, 1, 8, 8)
    image[..., :4, :4] = 1.0
    with torch.no_grad():
        assert not torch.allclose(model(image), model(image.flip(2)), atol=1e-5)
        model.positions.zero_()
        assert torch.allclose(model(image), model(image.flip(2)), atol=1e-5), "without positions patches are a set"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeNetSpec().build((1, 8, 8), 10), "needs images of at least 12 x 12 pixels, and inputs are [1, 8, 8]"),
        (lambda: SmallConvNetSpec().build((30,), 2), "at least 4 x 4 pixels, and inputs are [30]"),
        (lambda: CifarResNetSpec(name="resnet32").build((30,), 2), "'resnet32' needs images"),
        (lambda: VitSpec(patch=16).build((1, 8, 8), 10), "at least 16 x 16 pixels"),
        (lambda: VitSpec(width=10), "model.width must be a multiple of its 4 heads, got 10"),
        (lambda: MlpSpec(hidden=0), "model.hidden must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_one_sentence(make, message) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet20", "vit"])
@pytest.mark.parametrize("cosine", [False, True], ids=["linear", "cosine"])
def test_the_monitor_reads_every_parameter(name: str, cosine: bool, tmp_path: Path) -> None:
    model = built(name, (3, 16, 16), 4)
    if cosine:
        Ldam().prepare(model, torch.tensor([9, 3, 3, 1]))
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with imbdyn.Monitor(model, optimizer, 4, tmp_path / "run", interval=1) as monitor:
            with monitor.batch(labels):
                F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            model.eval()
            with monitor.evaluate("test"), torch.no_grad(), monitor.batch(labels):
                model(images)
    trace = imbdyn.open_trace(tmp_path / "run")
    assert set(trace.parameters["parameter"]) >= {name for name, _ in model.named_parameters()}
    assert trace.parameters["residual"].max() < 1e-5
    assert trace.features["layer"].nunique() == 1, "the features before the classifier are read"


def test_a_users_own_model_is_called_with_its_classes_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("their_models")
    module.wide = lambda num_classes, width: nn.Sequential(nn.Linear(5, width), nn.Linear(width, num_classes))
    module.wrong = lambda num_classes: num_classes
    monkeypatch.setitem(sys.modules, "their_models", module)
    assert built("their_models:wide", (5,), 3, options={"width": 17})[0].out_features == 17
    with pytest.raises(ConfigError, match=r"cannot be made: TypeError: .*width"):
        built("their_models:wide", (5,), 3)
    with pytest.raises(ConfigError, match=r"must return a torch\.nn\.Module, got int"):
        built("their_models:wrong", (5,), 3)


def test_a_users_own_spec_has_its_fields_as_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Theirs(ModelSpec):
        width: int = 3

        def build(self, shape, num_classes):  # noqa: ARG002
            return nn.Linear(self.width, num_classes)

    module = types.ModuleType("their_specs")
    module.Theirs = Theirs
    monkeypatch.setitem(sys.modules, "their_specs", module)
    assert built("their_specs:Theirs", (5,), 3, width=4).in_features == 4


def test_timm_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match="'timm:resnet18' needs timm: pip install timm"):
        built("timm:resnet18", (3, 32, 32))


def test_timm_is_asked_for_random_weights_and_its_errors_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def create_model(name: str, **options: object) -> nn.Module:
        asked.append((name, options))
        if "depth" in options:
            raise TypeError("no depth")
        return nn.Linear(1, 1)

    timm = types.SimpleNamespace(
        is_model=lambda name: name == "resnet18", list_models=lambda: ["resnet18", "vit"], create_model=create_model
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    built("timm:resnet18", (1, 32, 32), 5, options={"drop_rate": 0.1})
    assert asked == [("resnet18", {"pretrained": False, "in_chans": 1, "num_classes": 5, "drop_rate": 0.1})]
    with pytest.raises(ConfigError, match="timm has no model 'resnet81'; the nearest known one is resnet18"):
        built("timm:resnet81", (3, 32, 32))
    with pytest.raises(ConfigError, match=r"timm cannot make resnet18 with .*: no depth"):
        built("timm:resnet18", (3, 32, 32), options={"depth": 3})


def test_timm_that_cannot_be_imported_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(MissingPackageError, match=r"cannot be imported: RuntimeError: operator torchvision::nms does"):
        built("timm:resnet18", (3, 32, 32))


@pytest.mark.models
def test_a_timm_model_is_made_with_random_weights() -> None:
    import torchvision_operators  # noqa: F401

    model = built("timm:resnet18", (1, 32, 32), 5, options={"drop_rate": 0.1})
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(ConfigError, match="timm has no model 'resnet81'; the nearest known one is resnet18"):
        built("timm:resnet81", (3, 32, 32))


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "options", "method"),
    [
        ("resnet18", {}, "cross_entropy"),
        (
            "vit_tiny_patch16_224",
            {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
            "ldam",
        ),
    ],
)
def test_a_timm_model_is_trained_on_cifar_and_read(
    name: str, options: dict[str, object], method: str, tmp_path: Path
) -> None:
    import torchvision_operators  # noqa: F401

    write_cifar_parquet(tmp_path / "cifar10")
    config = experiment(
        "timm",
        {
            "data": {"name": "cifar10", "path": str(tmp_path / "cifar10")},
            "imbalance": {"profile": "exponential", "ratio": 3},
            "model": {"name": f"timm:{name}", "options": options},
            "method": {"name": method},
            "train": {"epochs": 2, "batch_size": 16},
        },
    )
    data = config.data.load(config.seed)
    run = plan(config, data)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # of timm's own calls
        train(run, data, tmp_path / "run", force=False, on_epoch=lambda: None)
    trace = imbdyn.open_trace(tmp_path / "run")
    assert trace.run["status"] == "finished"
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.parameters["residual"].max() < 1e-5
    assert trace.features["nc2_angle"].notna().all()
