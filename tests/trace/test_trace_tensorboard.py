import io
import math

import numpy as np
import pytest
from click.testing import CliRunner

from imbdyn.cli import main
from imbdyn.trace import TraceWriter, open_trace
from imbdyn.trace.export import export_table

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def written(tmp_path):
    with_rows = TraceWriter(tmp_path / "run")
    for step in (1, 2):
        with_rows.append(
            "classes",
            step=step,
            split="test",
            class_id=[0, 3],
            count=[10 * step, 2],
            loss=np.ma.masked_array([step / 2, math.nan], [False, step == 1]),
        )
        with_rows.append(
            "class_gradients", step=step, parameter=["*", "net.0/weight"], class_id=1, grad_norm=[1.5, 0.1]
        )
        with_rows.append("steps", step=step, split="train", sampled=True)
        with_rows.commit()
    with_rows.close("finished")
    return tmp_path / "run"


def scalars(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}, found


def test_tensorboards_own_reader_finds_every_value_under_its_tag(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", str(written), "--format", "tensorboard"])
    assert (result.exit_code, result.output) == (
        0,
        "4 rows of classes in run-tensorboard/events.out.tfevents.classes\n",
    )
    found, accumulator = scalars("run-tensorboard")
    assert set(found) == {
        "classes/count/test/0",
        "classes/count/test/3",
        "classes/loss/test/0",
        "classes/loss/test/3",
    }
    assert found["classes/count/test/0"] == [(1, 10.0), (2, 20.0)]
    assert found["classes/loss/test/0"] == [(1, 0.5), (2, 1.0)]
    (step, value), *rest = found["classes/loss/test/3"]
    assert step == 2  # null at step 1 is no event, NaN at step 2 is one
    assert math.isnan(value)
    assert rest == []
    assert accumulator.FirstEventTimestamp() == pytest.approx(written.stat().st_mtime, abs=60)


def test_the_key_is_in_the_tag_whatever_columns_are_chosen(written, tmp_path):
    for table, columns in (("class_gradients", ["grad_norm"]), ("steps", ["sampled"])):
        with (tmp_path / f"events.out.tfevents.{table}").open("wb") as sink:
            assert export_table(open_trace(written), table, "tensorboard", sink, columns) == 4 - 2 * (table == "steps")
    found, _ = scalars(tmp_path)
    assert found == {
        "class_gradients/grad_norm/*/1": [(1, 1.5), (2, 1.5)],
        "class_gradients/grad_norm/net.0/weight/1": [(1, float(np.float32(0.1))), (2, float(np.float32(0.1)))],
        "steps/sampled/train": [(1, 1.0), (2, 1.0)],
    }


def test_several_runs_have_their_names_in_the_tags(written, tmp_path):
    with (tmp_path / "events.out.tfevents.all").open("wb") as sink:
        export_table(open_trace([written]), "steps", "tensorboard", sink)
    assert list(scalars(tmp_path)[0]) == ["steps/sampled/run/train"]


def test_a_run_that_does_not_say_when_it_started_is_exported(written):
    trace = open_trace(written)
    trace.run["started"] = "yesterday"
    sink = io.BytesIO()
    assert export_table(trace, "steps", "tensorboard", sink) == 2
