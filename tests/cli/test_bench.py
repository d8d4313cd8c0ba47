from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner, Result

import imbdyn
from imbdyn.bench.ops import OPS
from imbdyn.bench.report import measured_on, report
from imbdyn.bench.steps import STEPS
from imbdyn.bench.suite import WIDTH, Suite, duration, ratio
from imbdyn.cli import main


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", "--seconds", "0.01", *arguments])


def test_both_tables_and_what_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for where, suite, name in (
        ("ops.OPS", OPS, "class_logits N 128, C 10"),
        ("steps.STEPS", STEPS, "digits CNN, N 64"),
    ):
        monkeypatch.setattr(f"imbdyn.bench.{where}", replace(suite, names=(name,)))
    result = bench()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert f"imbdyn {imbdyn.__version__}" in " ".join(lines[:2])
    assert max(map(len, lines)) <= WIDTH
    (logits,) = [line for line in lines if line.startswith("class_logits N 128, C 10 ")]
    assert re.fullmatch(r"class_logits N 128, C 10 +[\d.]+ (us|ms)( +[\d.]+x){2}", logits)
    (cnn,) = [line for line in lines if line.startswith("digits CNN, N 64 ")]
    assert re.fullmatch(r"digits CNN, N 64 +[\d.]+ (ms|s)( +[\d.]+x){3}", cnn)
    assert "floor: the bare step and each layer's weight gradient once more" in " ".join(lines)
    assert result.stderr == ""


def test_json_states_machine_and_versions_and_nothing_else_is_printed() -> None:
    result = bench("--only", "call alone", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found) == ["date", "machine", "versions", "serves", "median_us"]
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert set(found["versions"]) == {"torch", "imbdyn", "python", "compiler"}
    assert list(found["median_us"]) == OPS.matching("call alone")
    for medians in found["median_us"].values():
        assert set(medians) == {"floor", "op", "plain"}
        assert all(0 < us < 1e6 for us in medians.values())
        assert math.isfinite(medians["op"] / medians["floor"])


def test_without_compiled_kernels_results_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imbdyn.ops._extension.kernels", None)
    stated = report(answer=42)
    assert (stated["machine"]["instruction_set"], stated["versions"]["compiler"], stated["answer"]) == (None, None, 42)
    assert "no compiled kernels" in " ".join(measured_on().split())


def test_a_long_name_of_a_processor_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imbdyn.bench.report.cpu_model", lambda: "Processor " * 12)
    assert max(map(len, measured_on().splitlines())) <= WIDTH


def test_json_of_steps_has_ratios_to_the_bare_step() -> None:
    found = json.loads(bench("steps", "--only", "784-64-10", "--json").stdout)
    assert list(found) == ["date", "machine", "versions", "cases"]
    (case,) = found["cases"].values()
    assert set(case) == {"bare_ms", "every step", "floor", "logits"}
    assert case["every step"] > case["floor"] > 1
    assert 0 < case["logits"] < case["every step"]


@pytest.mark.parametrize("arguments", [("--only", "class_momments"), ("steps", "--only", "class_moments")])
def test_a_wrong_name_is_one_sentence(arguments: tuple[str, ...]) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: --only needs a part of a name, got '{arguments[-1]}'; the names are: ")
    assert "ResNet-32" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [("gpus",), ("--seconds", "0"), ("--seconds", "-1")])
def test_other_mistakes_are_mistakes(arguments: tuple[str, ...]) -> None:
    assert bench(*arguments).exit_code == 2


@pytest.mark.parametrize("suite", [OPS, STEPS])
def test_every_line_fits_the_width_and_its_column(suite: Suite) -> None:
    largest = dict.fromkeys(("floor", "op", "plain", "bare_ms", "every step", "logits"), 999_999.0)
    small = {**largest, "op": 999_999e-9, "every step": 1e-3}
    for name in suite.names:
        for measured in (largest, small):
            line = suite.line(name, measured)
            assert len(line) <= WIDTH
            assert line.startswith(f"{name}  ")
    assert len(suite.heading) == len(suite.line(suite.names[0], largest)) <= WIDTH


def test_numbers_keep_their_digits() -> None:
    assert [duration(s) for s in (9.4e-6, 123e-6, 0.00552, 0.1036, 12.34)] == [
        "9.40 us", "123 us", "5.52 ms", "104 ms", "12.3 s",
    ]  # fmt: skip
    assert [ratio(value) for value in (20.181, 1.0, 0.58, 0.00289)] == ["20.18x", "1.00x", "0.58x", "0.0029x"]
