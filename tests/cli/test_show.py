from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from findings.synthetic_traces import curve_reaching, write_trace

from imbdyn.cli import main
from imbdyn.trace import TraceWriter


def test_show_prints_a_table_and_the_claims(tmp_path: Path) -> None:
    write_trace(tmp_path / "run", [120] * 5 + [6] * 5, [curve_reaching(2, 9)] * 10, [0.9] * 10)
    result = CliRunner().invoke(main, ["show", str(tmp_path / "run")])
    assert result.exit_code == 0
    assert "others (5)" in result.output
    assert "2. REFUTED: Under imbalance" in result.output
    assert "What else run shows\narea between curves 0.00: Train recall" in result.output


def test_json_is_all_of_standard_output(tmp_path: Path) -> None:
    paths = [str(write_trace(tmp_path / name, [120, 6], [[0.0, 1.0], [0.0, 0.0]]).path) for name in ("a", "b")]
    found = json.loads(CliRunner().invoke(main, ["show", "--json", *paths]).stdout)
    assert [run["path"] for run in found["runs"]] == paths
    assert found["runs"][0]["classes"][1]["epoch_learned"] is None
    claims = [finding for finding in found["findings"] if finding["kind"] == "claim"]
    assert [finding["on"] for finding in claims] == [
        f"The three claims on {n} alone (arXiv 2605.24908)" for n in "aaabbb"
    ]
    assert {finding["name"] for finding in found["findings"]} > {"nc1", "seli_rows", "noise_scale"}


def test_a_folder_of_runs_stands_for_all_of_them(tmp_path: Path) -> None:
    paths = [str(write_trace(tmp_path / name, [120, 6], [[0.0, 1.0], [0.0, 0.0]]).path) for name in ("b", "a")]
    found = json.loads(CliRunner().invoke(main, ["show", "--json", str(tmp_path)]).stdout)
    assert [run["path"] for run in found["runs"]] == sorted(paths)


def test_a_pattern_and_a_uri_are_shown_too(tmp_path: Path) -> None:
    for name in ("seed0", "seed1", "other"):
        write_trace(tmp_path / name, [120, 6], [[0.0, 1.0], [0.0, 0.0]])
    found = json.loads(CliRunner().invoke(main, ["show", "--json", str(tmp_path / "seed*")]).stdout)
    assert [run["path"] for run in found["runs"]] == [str(tmp_path / "seed0"), str(tmp_path / "seed1")]
    shown = CliRunner().invoke(main, ["show", (tmp_path / "other").as_uri()])
    assert (shown.exit_code, "others (1)" in shown.output) == (0, True)


def test_what_is_no_trace_is_one_sentence(tmp_path: Path) -> None:
    write_trace(tmp_path / "a", [1, 1], [[1.0]] * 2)
    TraceWriter(tmp_path / "bare").close("finished")
    for path, message in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "bare was not written by a Monitor"),
        (tmp_path / "bare", "not written by a Monitor"),
    ):
        result = CliRunner().invoke(main, ["show", str(path)])
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert message in result.output
        assert result.output.count("\n") == 1
