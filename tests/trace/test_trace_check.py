"""imbdyn check, its repair, and compact: what they find, keep and say. Traces made by hand from the format."""

import json
import os
import shutil
import warnings

import handmade
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from imbdyn.cli import main
from imbdyn.trace import TraceDamage, TraceError, TraceWriter, open_trace
from imbdyn.trace import compact as compact_module
from imbdyn.trace.check import check
from imbdyn.trace.compact import compact
from imbdyn.trace.repair import repair
from imbdyn.trace.schema import TABLES


def rows(*steps):
    return [{"step": step, "split": "train", "class_id": c, "loss": step + c / 10} for step in steps for c in (0, 1)]


def windows(*steps):
    return [{"step": step, "since_step": step - 1, "split": "train"} for step in steps]


def commits(*steps):
    return [{"classes": rows(step), "steps": windows(step)} for step in steps]


@pytest.fixture
def run(tmp_path):
    """Steps 1 to 8 in two parts a table, 9 to 12 in the journal, of a run that was killed an hour ago."""
    run = tmp_path / "run"
    handmade.write_run(run, status="running")
    for sequence, steps in enumerate((range(1, 5), range(5, 9))):
        handmade.write_part(run, "classes", rows(*steps), sequence=sequence, seals=steps[-1], group_rows=4)
        handmade.write_part(run, "steps", windows(*steps), sequence=sequence, seals=steps[-1])
    handmade.write_segment(run, commits(9, 10, 11, 12), first=9)
    return run


def rest(run):
    """Let an hour pass since anything was written."""
    for path in [run, *run.rglob("*")]:
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def part(run, table, sequence):
    (path,) = (run / table).glob(f"part-0000-{sequence:08d}-*")
    return path


def steps_of(run, table="classes"):
    with warnings.catch_warnings():
        warnings.simplefilter("error", TraceDamage)
        return open_trace(run).table(table)["step"].to_pylist()


def problems(run):
    return [(problem.kind, problem.file) for problem in check(run).problems]


def test_a_sound_trace_is_sound(run):
    report = check(run)
    assert report.problems == report.notes == []
    assert report.tables["classes"] == {"parts": 2, "row_groups": 4, "rows": 16, "journal_rows": 8}
    assert (report.segments, report.commits, report.status) == (1, 4, "running")
    assert CliRunner().invoke(main, ["check", str(run)]).exit_code == 0


def test_what_the_writer_writes_is_sound(trace):
    report = check(trace.path)
    assert {problem.message for problem in report.problems} == {"class_a is not below class_b in every row"}
    assert {name: table["rows"] for name, table in report.tables.items()} == dict.fromkeys(TABLES, 32)


def test_every_kind_of_problem_is_found_in_its_file(run):
    assert problems(run) == []
    extra = handmade.write_part(run, "classes", rows(2, 20), sequence=2, seals=8)
    assert problems(run) == [("key", f"classes/{extra.name}")]
    extra.unlink()
    extra = handmade.write_part(run, "classes", rows(21, 20), sequence=2, seals=8)
    assert problems(run) == [("key", f"classes/{extra.name}")]
    extra.unlink()
    extra = handmade.write_part(
        run, "class_gradient_pairs", [{"step": 1, "parameter": "*", "class_a": 2, "class_b": 1}]
    )
    assert problems(run) == [("key", f"class_gradient_pairs/{extra.name}")]
    shutil.rmtree(run / "class_gradient_pairs")
    handmade.write_segment(run, commits(14), sequence=1, first=14)
    assert problems(run) == [("gap", "_journal")]
    shutil.rmtree(run / "_journal")
    flip(part(run, "classes", 1), 10)
    assert problems(run) == [("damage", f"classes/{part(run, 'classes', 1).name}")]
    part(run, "classes", 0).unlink()
    assert ("gap", "classes") in problems(run)
    flip(run / "run.json", 40)
    assert problems(run)[0] == ("damage", "run.json")


def test_a_missing_training_window_is_a_gap(run):
    shutil.rmtree(run / "_journal")
    handmade.write_part(run, "steps", windows(10, 11), sequence=2, seals=8)
    (problem,) = check(run).problems
    assert (problem.kind, problem.file) == ("gap", "steps")
    assert problem.message == "no training window covers the steps 9, and no loss is declared"
    handmade.write_run(run, dropped_rows=1)
    assert check(run).ok


def test_superseded_rows_are_no_doubles(run):
    shutil.rmtree(run / "_journal")
    for table, again in (("classes", rows(7, 8, 9)), ("steps", windows(7, 8, 9))):
        handmade.write_part(run, table, again, sequence=2, seals=11)
    assert {kind for kind, _ in problems(run)} == {"key"}
    handmade.write_run(run, resumed=[{"step": 6, "parts": {"classes/0000": 2, "steps/0000": 2}}])
    assert check(run).ok


def test_repair_leaves_a_run_alone_that_goes_on(run, tmp_path):
    with pytest.raises(TraceError, match="its run has not ended"):
        repair(run)
    writer = TraceWriter(tmp_path / "alive")
    writer.append("classes", step=1, split="train", class_id=0)
    writer.commit()
    rest(tmp_path / "alive")
    with pytest.raises(TraceError, match="its run has not ended"):
        repair(tmp_path / "alive")
    writer.close("finished")


def test_repair_of_a_killed_run_seals_its_journal(run):
    rest(run)
    done = repair(run)
    assert done.after.ok
    assert done.lost == []
    assert (done.after.status, done.after.segments) == ("interrupted", 0)
    assert steps_of(run) == [step for step in range(1, 13) for _ in (0, 1)]
    assert len(pd.read_parquet(run / "classes")) == 24
    assert not (run / "_quarantine").exists()


def test_repair_keeps_what_stands_whole_behind_a_damaged_record(run):
    path = run / "_journal" / "0000-00000000.journal"
    records = handmade.records_of(9, commits(9, 10, 11, 12))
    flip(path, 8 + len(records[0]) + len(records[1]) + 300)
    rest(run)
    with pytest.warns(TraceDamage, match="0000-00000000.journal"):
        assert len(open_trace(run).classes) == 18
    done = repair(run)
    assert done.after.ok
    assert steps_of(run) == [step for step in (*range(1, 10), 11, 12) for _ in (0, 1)]
    assert len(done.lost) == 1
    assert done.lost[0].startswith("the commits [10] of _journal/0000-00000000.journal")
    assert (run / "_quarantine" / "_journal--0000-00000000.journal").stat().st_size == 8 + sum(map(len, records))
    assert done.lost[0] in json.loads((run / "run.json").read_text())["lost"][0]["what"]


def test_repair_keeps_the_row_groups_that_are_whole_and_says_which_steps_are_lost(run):
    old = part(run, "classes", 0)
    flip(old, 10)
    rest(run)
    done = repair(run)
    assert done.after.ok
    assert done.lost == [f"4 rows of classes, steps 1 to 2 of classes/{old.name}"]
    assert steps_of(run) == [step for step in range(3, 13) for _ in (0, 1)]
    assert (run / "_quarantine" / f"classes--{old.name}").exists()


def test_repair_puts_a_part_without_footer_aside_and_says_between_which_steps_it_lay(run):
    old = part(run, "classes", 1)
    flip(old, -20)
    rest(run)
    done = repair(run)
    assert done.after.ok
    assert done.lost == [f"the rows of classes/{old.name}, from step 4 to the end"]
    assert steps_of(run) == [step for step in (*range(1, 5), *range(9, 13)) for _ in (0, 1)]


def test_repair_writes_a_damaged_run_json_anew_and_infers_resumptions(run):
    shutil.rmtree(run / "_journal")
    for table, again in (("classes", rows(7, 8, 9)), ("steps", windows(7, 8, 9))):
        handmade.write_part(run, table, again, sequence=2, seals=11)
    handmade.write_part(run, "classes", rows(9), sequence=3, seals=12)  # the same step again, and nothing else
    flip(run / "run.json", 40)
    with pytest.raises(TraceError, match=r"run\.json"):
        open_trace(run)
    done = repair(run)
    assert done.after.ok
    assert steps_of(run) == [step for step in range(1, 10) for _ in (0, 1)]
    assert steps_of(run, "steps") == list(range(1, 10))
    assert (run / "_quarantine" / "run.json").exists()


def test_repair_of_random_damage_gives_a_sound_trace_with_no_wrong_row(run, tmp_path):
    random = np.random.default_rng(0)
    expected = {repr(row) for row in rows(*range(1, 13))}
    for _ in range(25):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        for _ in range(3):
            path = files[random.integers(len(files))]
            flip(path, random.integers(path.stat().st_size))
        rest(copy)
        done = repair(copy)
        assert done.after.ok, done.after.problems
        found = open_trace(copy).table("classes", ["step", "split", "class_id", "loss"]).to_pylist()
        assert {repr(row) for row in found} <= expected
        assert len({repr(row) for row in found}) == len(found)
        assert len(found) == 24 or done.lost


def test_check_says_it_for_people_and_for_programs(run):
    flip(part(run, "classes", 0), 10)
    rest(run)
    name = part(run, "classes", 0).name
    result = CliRunner().invoke(main, ["check", str(run)])
    assert result.exit_code == 1
    assert f"damage:   classes/{name}: row group 0" in result.output
    assert "not sound, 1 problems; --repair keeps what is whole" in result.output
    told = json.loads(CliRunner().invoke(main, ["check", str(run), "--json"]).output)
    assert (told["ok"], [problem["kind"] for problem in told["problems"]]) == (False, ["damage"])
    told = json.loads(CliRunner().invoke(main, ["check", str(run), "--json", "--repair"]).output)
    assert told["ok"]
    assert not told["before"]["ok"]
    assert told["lost"] == [f"4 rows of classes, steps 1 to 2 of classes/{name}"]
    for wrong in (str(run.parent), str(run / "nothing")):
        result = CliRunner().invoke(main, ["check", wrong])
        assert (result.exit_code, result.output.count("\n")) == (2, 1)


@pytest.fixture
def ended(run):
    rest(run)
    repair(run)
    return run


def test_compact_merges_the_parts_of_a_table(ended):
    before = open_trace(ended).classes
    assert compact(ended) == [("steps", 3, 1), ("classes", 3, 1)]
    assert check(ended).ok
    pd.testing.assert_frame_equal(open_trace(ended).classes, before)
    assert len(pd.read_parquet(ended / "classes")) == 24
    result = CliRunner().invoke(main, ["compact", str(ended)])
    assert result.output == "steps: 1 parts, now 1\nclasses: 1 parts, now 1\n"


def test_compact_leaves_superseded_rows_out_and_makes_no_part_too_large(ended, monkeypatch):
    handmade.write_part(ended, "classes", rows(11, 12, 13), sequence=3, seals=20)
    handmade.write_run(ended, resumed=[{"step": 10, "parts": {"classes/0000": 3}}])
    monkeypatch.setattr(compact_module, "MERGED_ROWS", 17)
    before = open_trace(ended).classes
    assert ("classes", 4, 2) in compact(ended)
    pd.testing.assert_frame_equal(open_trace(ended).classes, before)
    assert len(pd.read_parquet(ended / "classes")) == len(before) == 26
    assert check(ended).ok


@pytest.mark.parametrize("crash", range(8))
def test_a_crash_at_any_instant_of_a_compaction_loses_and_doubles_nothing(ended, monkeypatch, crash):
    before = open_trace(ended).classes
    left = [crash]

    def crashing(function):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    for name in ("write_part", "open_part", "sync_folder"):
        monkeypatch.setattr(compact_module, name, crashing(getattr(compact_module, name)))
    monkeypatch.setattr(type(ended), "unlink", crashing(type(ended).unlink))
    with pytest.raises(KeyboardInterrupt):
        compact(ended)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(open_trace(ended).classes, before)
    assert check(ended).ok
    assert [after for _, _, after in compact(ended)] == [1, 1]
    pd.testing.assert_frame_equal(open_trace(ended).classes, before)
    assert len(list((ended / "classes").iterdir())) == 1


def test_compact_refuses_a_run_that_goes_on_and_a_damaged_one(run):
    with pytest.raises(TraceError, match="its run has not ended"):
        compact(run)
    flip(part(run, "classes", 0), 10)
    result = CliRunner().invoke(main, ["compact", str(run)])
    assert result.exit_code == 2
    assert "imbdyn check --repair first" in result.output
