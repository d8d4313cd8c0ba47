from __future__ import annotations

from pathlib import Path

import pytest

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
    ],
)
def test_mistakes_are_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, text))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_what_is_not_toml_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML: .*line 1"):
        load_config(written(tmp_path, "seed = = 1"))


def test_neither_preset_nor_file_names_the_presets() -> None:
    with pytest.raises(ConfigError, match="a preset \\(default\\) or a TOML file, and 'defualt' is neither"):
        load_config("defualt")
