"""A Monitor and the command line with a store for `out`, read back by open_trace."""

from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from loops import CLASSES, train
from torch import nn

from imbdyn import Monitor, open_trace
from imbdyn.cli import main
from imbdyn.monitor.problems import ImbdynWarning
from imbdyn.trace import TraceWriter, _upload
from imbdyn.trace._remote import Remote
from imbdyn.trace._resend import send_staged
from imbdyn.trace._staging import staged
from imbdyn.trace.run_file import encode_run
from imbdyn.trace.schema import TABLES

#: What differs between two equal runs.
TIMES = ["step_seconds", "overhead_seconds"]


def parts_of_a_training():
    torch.manual_seed(0)
    model = nn.Linear(6, CLASSES)
    batches = [(torch.randn(8, 6), torch.randint(CLASSES, (8,))) for _ in range(6)]
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), batches


def monitored(out, **options):
    model, optimizer, batches = parts_of_a_training()
    with Monitor(model, optimizer, CLASSES, out, interval=1, **options) as monitor:
        train(model, batches, optimizer=optimizer, monitor=monitor)


def test_a_trace_in_a_store_reads_as_one_in_a_folder(uri, tmp_path):
    monitored(tmp_path / "local")
    monitored(uri)
    local, remote = open_trace(tmp_path / "local"), open_trace(uri)
    assert remote.run["status"] == "finished"
    assert len(remote.classes) == 6 * CLASSES
    for table in TABLES:
        ours = remote.table(table).to_pandas().drop(columns=TIMES, errors="ignore")
        pd.testing.assert_frame_equal(ours, local.table(table).to_pandas().drop(columns=TIMES, errors="ignore"))


def test_a_monitor_resumes_from_a_checkpoint_in_a_store(uri, tmp_path, monkeypatch):
    monitored(tmp_path / "local")
    model, optimizer, batches = parts_of_a_training()
    with Monitor(model, optimizer, CLASSES, uri, interval=1) as monitor:
        train(model, batches[:3], optimizer=optimizer, monitor=monitor)
        saved = monitor.state_dict()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        moments = optimizer.state_dict()
        train(model, batches[3:5], optimizer=optimizer, monitor=monitor)  # later than the checkpoint
    monkeypatch.setenv("IMBDYN_STAGING", str(tmp_path / "another machine"))
    model, optimizer, _ = parts_of_a_training()
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    with Monitor(model, optimizer, CLASSES, uri, interval=1, resume=True) as monitor:
        monitor.load_state_dict(saved)
        train(model, batches[3:], optimizer=optimizer, monitor=monitor)
    assert open_trace(uri).steps["step"].tolist() == open_trace(tmp_path / "local").steps["step"].tolist()


def test_a_store_that_fails_is_a_warning_and_training_goes_on(s3, uri, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.3)
    model, optimizer, batches = parts_of_a_training()
    monitor = Monitor(model, optimizer, CLASSES, uri, interval=1)
    s3.begin("refuse")
    train(model, batches, optimizer=optimizer, monitor=monitor)
    with pytest.warns(
        ImbdynWarning, match=r"UnsentError: \d files of the trace were not sent .* --repair`, sends them"
    ):
        monitor.close()
    s3.recover()
    [folder] = staged(uri)
    send_staged(folder)
    assert open_trace(uri).steps["step"].nunique() == 6


def test_the_command_line_trains_into_a_store(s3, request, tmp_path, monkeypatch):
    traces = []
    monkeypatch.setattr("imbdyn.cli.run.print_report", lambda found, **_: traces.extend(found))
    monkeypatch.setattr("imbdyn.experiments.run.RUN_NAMES", ("balanced",))  # one of three, for the time that they take
    config = tmp_path / "tiny.toml"
    config.write_text("[train]\nepochs = 1\nbatch_size = 512\n[model]\nchannels = 4\nhidden = 16\n", encoding="utf-8")
    out = s3.uri(f"bucket/{request.node.name}", key="SECRET")
    result = CliRunner().invoke(main, ["run", str(config), "--out", out])
    assert result.exit_code == 0, result.output
    assert [(Path(trace.path).parts[-3:], trace.run["status"]) for trace in traces] == [
        ((request.node.name, "tiny-seed0", "balanced"), "finished")
    ]
    assert f"The traces are in s3://bucket/{request.node.name}/tiny-seed0?" in result.stderr
    assert list((tmp_path / "staging").iterdir()) == []
    again = CliRunner().invoke(main, ["run", str(config), "--out", out])
    assert again.exit_code == 2
    assert f"s3://bucket/{request.node.name}/tiny-seed0/balanced?" in again.output
    assert "exists and is not overwritten" in again.output
    kept = CliRunner().invoke(main, ["run", str(config), "--out", out, "--resume"])
    assert "Finished and kept: balanced." in kept.stderr
    assert "SECRET" not in result.output + again.output + kept.output


def test_a_run_json_that_is_replaced_while_it_is_read_is_read_again(s3, uri, request):
    writer = TraceWriter(uri)
    records = [encode_run({**open_trace(uri).run, "note": "x" * size}) for size in (9_000, 10)]

    remote = Remote(uri)  # now: pyarrow makes no S3 filesystem while a request is on its way
    remote.write("run.json", BytesIO(records[0]))

    def replace() -> None:
        remote.write("run.json", BytesIO(records[1]))

    s3.before[f"GET /bucket/{request.node.name}/run.json"] = replace  # pyarrow has asked for the size with a HEAD
    assert open_trace(uri).run["note"] == "x" * 10
    assert s3.before == {}
    writer.close("finished")
