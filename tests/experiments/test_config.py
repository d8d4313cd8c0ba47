from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from imbdyn.experiments.config import ConfigError, load_config, presets


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_preset_is_valid() -> None:
    assert "default" in presets()
    for name in presets():
        assert load_config(name).name == name


def test_a_file_overrides_single_values_and_keeps_the_others(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "seed = 3\n[train]\nepochs = 2\nlr = 1\n"))
    default = load_config("default")
    assert (config.name, config.seed, config.train.epochs, config.train.lr) == ("mine", 3, 2, 1.0)
    assert isinstance(config.train.lr, float)
    assert config.train.batch_size == default.train.batch_size
    assert config.model == default.model


def test_a_file_names_its_preset(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, 'preset = "default"')).train == load_config().train
    with pytest.raises(ConfigError, match=r"^preset must be one of default, got 'large'$"):
        load_config(written(tmp_path, 'preset = "large"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", "unknown key train.epoch; the nearest valid one is train.epochs"),
        ("epochs = 3", "unknown key epochs; the nearest valid one is train.epochs"),
        ("[trian]\nlr = 0.1", "unknown key trian; the nearest valid one is train"),
        ("sead = 1", "unknown key sead; the nearest valid one is seed"),
        ('name = "x"', "unknown key name; an experiment is named after its file, this one 'mine'"),
        ('[train]\nepochs = "many"', "train.epochs must be an integer, got a string ('many')"),
        ("[train]\nepochs = 2.5", "train.epochs must be an integer, got a number (2.5)"),
        ("[train]\nlr = true", "train.lr must be a number, got a boolean (True)"),
        ("seed = [1]", "seed must be an integer, got an array ([1])"),
        ("train = 3", "train must be a table ([train]), got an integer (3)"),
        ("[train]\nepochs = 0", "train.epochs must be at least 1, got 0"),
        ("[train]\nmomentum = nan", "train.momentum must be at least 0 and below 1, got nan"),
        ("seed = -1", "seed must be 0 to 4294967295, got -1"),
        (
            '[train]\noptimizer = "adam"',
            "unknown train.optimizer 'adam'; the nearest known one is adamw; it is sgd, adamw",
        ),
        (
            '[train]\nschedule = "cosin"',
            "unknown train.schedule 'cosin'; the nearest known one is cosine; it is constant",
        ),
        ("[train]\nmilestones = [1, 2.5]", "train.milestones[1] must be an integer, got a number (2.5)"),
        ("[train]\nmilestones = 160", "train.milestones must be an array, got an integer (160)"),
        ("[train]\naugment = 1", "train.augment must be a boolean, got an integer (1)"),
        (
            '[data]\nname = "digit"',
            "unknown data.name 'digit'; the nearest known one is digits; it is digits, mnist5k,",
        ),
        ('[data]\nname = "mnist"', "data.path is missing: it must be a string"),
        ('[data]\npath = "x"', "unknown key data.path; the nearest valid one is data"),
        (
            '[model]\nname = "resnet23"',
            "unknown model.name 'resnet23'; the nearest known one is resnet32; it is small_conv_net,",
        ),
        ('[model]\nname = "mlp"\nchannels = 3', "unknown key model.channels; the nearest valid one is "),
        ("[model]\nname = 3", "model.name must be a string, got an integer (3)"),
        (
            '[imbalance]\nprofile = "stepp"',
            "unknown imbalance.profile 'stepp'; the nearest known one is step; it is step,",
        ),
        ('[imbalance]\nname = "zipf"', "unknown key imbalance.name; the nearest valid one is "),
        ('[imbalance]\nprofile = "zipf"', "imbalance.exponent is missing: it must be a number"),
        ('[method]\nname = "focal"\ngama = 2', "unknown key method.gama; the nearest valid one is method.gamma"),
        (
            '[method]\nname = "no_such_module:thing"',
            "method.name 'no_such_module:thing' cannot be imported: ModuleNotFound",
        ),
        ('[method]\nname = "math:sqrtt"', "method.name 'math:sqrtt': math has no sqrtt; the nearest known one is sqrt"),
        ('[method]\nname = "math:sqrt"', "method.name 'math:sqrt' must be a dataclass derived from imbdyn."),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, text))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_file_that_names_another_thing_starts_from_its_own_defaults(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, '[model]\nname = "mlp"\nhidden = 7\n[imbalance]\nprofile = "exponential"\nratio = 5\n')
    )
    assert config.as_dict()["model"] == {"name": "mlp", "hidden": 7, "depth": 2}
    assert config.as_dict()["imbalance"] == {"profile": "exponential", "ratio": 5.0, "rotate": True}


def test_what_the_first_version_took_is_taken(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, "[data]\ntest_share = 0.2\n[imbalance]\nratio = 10\nnum_rare = 3\n[model]\nchannels = 4\n")
    )
    assert config.as_dict()["data"] == {"name": "digits", "test_share": 0.2}
    assert config.imbalance.apply([50] * 10, seed=0).counts.count(5) == 3
    assert config.as_dict()["model"] == {"name": "small_conv_net", "channels": 4, "hidden": 64}


def test_a_configuration_is_what_json_makes_of_it(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "[train]\nmilestones = [3, 4]\n"))
    assert json.loads(json.dumps(config.as_dict())) == config.as_dict()


def test_a_users_own_method_is_named_by_its_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_method_of_today.py").write_text(
        "from dataclasses import dataclass\n"
        "from imbdyn.experiments.methods import Method\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Half(Method):\n"
        "    share: float = 0.5\n"
        "    def loss(self, logits, labels, counts, epoch):\n"
        "        return self.share * super().loss(logits, labels, counts, epoch)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = load_config(written(tmp_path, '[method]\nname = "my_method_of_today:Half"\nshare = 0.25\n'))
    assert config.as_dict()["method"] == {"name": "my_method_of_today:Half", "share": 0.25}
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    loss = config.method.loss(logits, labels, torch.tensor([1, 1]), 1)
    assert loss.item() == pytest.approx(0.25 * math.log1p(math.exp(-2.0)))


def test_what_is_not_toml_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML: .*line 1"):
        load_config(written(tmp_path, "seed = = 1"))


def test_neither_preset_nor_file_names_the_presets() -> None:
    with pytest.raises(ConfigError, match="a preset \\(default\\) or a TOML file, and 'defualt' is neither"):
        load_config("defualt")
