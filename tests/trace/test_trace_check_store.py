"""imbdyn check --repair sends what a run that has ended could not send."""

import pytest
from click.testing import CliRunner
from pyarrow import fs

from imbdyn.cli import main
from imbdyn.trace import TraceWriter, _upload, open_trace
from imbdyn.trace._staging import staged
from imbdyn.trace._store import filesystem_of


@pytest.mark.parametrize("named_by", ["uri", "staging folder"])
def test_check_repair_sends_what_waits(s3, uri, monkeypatch, named_by):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.1)
    writer = TraceWriter(uri)
    s3.begin("refuse")
    writer.append("classes", step=1, split="train", class_id=[0, 1])
    writer.commit()
    with pytest.raises(OSError, match="--repair"):
        writer.close("finished")
    s3.recover()
    [folder] = staged(uri)
    place = uri if named_by == "uri" else str(folder)
    result = CliRunner().invoke(main, ["check", place, "--repair"])
    assert result.exit_code == 0, result.output
    assert result.output.count("was sent") == 2
    assert "(finished): sound. 2 rows" in result.output
    assert open_trace(uri).classes["class_id"].tolist() == [0, 1]
    assert staged(uri) == []
    again = CliRunner().invoke(main, ["check", uri])
    assert (again.exit_code, again.output.count("\n")) == (0, 1)


def test_a_copy_of_a_trace_that_was_sent_is_no_staging_folder(uri, tmp_path):
    writer = TraceWriter(uri)
    writer.append("classes", step=1, split="train", class_id=[0, 1])
    writer.close("finished")
    copy = tmp_path / "copy"
    filesystem, root = filesystem_of(uri)
    fs.copy_files(root, str(copy), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
    result = CliRunner().invoke(main, ["check", str(copy), "--repair"])
    assert result.exit_code == 0, result.output
    assert len(open_trace(copy).classes) == 2


def test_credentials_of_the_uri_are_used_and_what_another_run_has_replaced_is_no_obstacle(
    s3, uri, request, monkeypatch
):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.1)
    uri = s3.uri(f"bucket/{request.node.name}", key="of-the-uri")
    writers = []
    for force in (False, True):
        writers.append(TraceWriter(uri, force=force))
        s3.begin("refuse")
        writers[-1].append("steps", step=1, split="train")
        with pytest.raises(OSError, match="--repair"):
            writers[-1].close("finished")
        s3.recover()
    s3.begin("expired", key="of-the-environment")
    result = CliRunner().invoke(main, ["check", uri, "--repair"])
    s3.recover()
    assert result.exit_code == 0, result.output
    assert f"lost:     {writers[0].path} is not sent to" in result.output
    assert len(open_trace(uri).steps) == 1
    assert staged(uri) == [writers[0].path]


def test_a_staging_folder_is_known_wherever_it_is(s3, uri, tmp_path, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.1)
    writer = TraceWriter(uri)
    s3.begin("refuse")
    writer.append("steps", step=1, split="train")
    with pytest.raises(OSError, match="--repair"):
        writer.close("finished")
    s3.recover()
    monkeypatch.setenv("IMBDYN_STAGING", str(tmp_path / "elsewhere"))
    assert CliRunner().invoke(main, ["check", str(writer.path), "--repair"]).exit_code == 0
    assert len(open_trace(uri).steps) == 1
    assert not writer.path.exists()
