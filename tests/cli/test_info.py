import json

from click.testing import CliRunner

from imbdyn.cli import main


def test_info_tells_what_serves() -> None:
    result = CliRunner().invoke(main, ["info"])
    assert result.exit_code == 0
    assert "class_moments" in result.output
    assert "another one is preferred" in result.output or "reference" in result.output


def test_info_json_has_versions_and_ops() -> None:
    found = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)
    assert found["packages"]["torch"]
    assert found["cpu"]["threads"] >= 1
    assert found["ops"]["class_logits"]["cuda"]
