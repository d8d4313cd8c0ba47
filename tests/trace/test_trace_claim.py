import pytest

from imbdyn.trace import TraceWriter, open_trace

PART = "part-0000-00000000-0a1b2c3d.parquet"


def test_an_out_that_exists_is_never_overwritten(trace):
    with pytest.raises(FileExistsError, match=r"exists and is never overwritten: .* force=True \(--force\)"):
        TraceWriter(trace.path)
    assert open_trace(trace.path).run == trace.run


def test_an_out_that_is_a_file_is_never_overwritten(tmp_path):
    (tmp_path / "run").write_text("mine")
    for force in (False, True):
        with pytest.raises(FileExistsError):
            TraceWriter(tmp_path / "run", force=force)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_out_is_taken_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        TraceWriter(out, force=False).close("finished")
        assert open_trace(out).run["status"] == "finished"


def test_force_replaces_a_trace_with_its_leftovers_and_leaves_other_files(trace):
    (trace.path / "classes" / ".part-0000-00000002.parquet.tmp").write_bytes(b"cut short")
    (trace.path / "report.html").write_text("mine")
    TraceWriter(trace.path, force=True).close("finished")
    assert sorted(path.name for path in trace.path.iterdir()) == ["report.html", "run.json"]


def test_force_refuses_a_folder_that_is_not_a_trace(tmp_path):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / PART).write_text("mine")
    for content in (None, "{}", "not JSON"):
        if content is not None:
            (tmp_path / "run.json").write_text(content)
        with pytest.raises(FileExistsError, match="force removes nothing but a trace"):
            TraceWriter(tmp_path, force=True)
        assert (tmp_path / "classes" / PART).read_text() == "mine"


@pytest.mark.parametrize(
    "strange", ["notes.parquet", "xpart-0000-00000000-0a1b2c3d.parquet", "part-0000-00000000-0a1b2c3d.parquet.bak"]
)
def test_force_removes_nothing_if_a_table_holds_a_strange_file(trace, strange):
    (trace.path / "steps" / strange).write_text("mine")
    before = sorted(trace.path.rglob("*"))
    with pytest.raises(FileExistsError, match=f"{strange} is no part of a trace, so force removed nothing"):
        TraceWriter(trace.path, force=True)
    assert sorted(trace.path.rglob("*")) == before


def test_force_removes_nothing_if_a_folder_has_the_name_of_a_part(trace):
    (trace.path / "steps" / "part-0000-00000009-0a1b2c3d.parquet").mkdir()
    with pytest.raises(FileExistsError, match=r"part-0000-00000009-0a1b2c3d\.parquet is no part of a trace"):
        TraceWriter(trace.path, force=True)
    assert len(open_trace(trace.path).classes) == 32


def test_force_does_not_follow_a_link_out_of_the_trace(trace, tmp_path):
    (trace.path / "classes").rename(tmp_path / "elsewhere")
    (trace.path / "classes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="classes is no part of a trace"):
        TraceWriter(trace.path, force=True)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2


@pytest.mark.parametrize("out", ["file/run", "/proc/imbdyn-run"])
def test_an_out_that_cannot_be_made_is_an_os_error(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"/(imbdyn-)?run"):
        TraceWriter(tmp_path / out)
