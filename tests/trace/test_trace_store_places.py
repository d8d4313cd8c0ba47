"""What names a store, what of it is secret, and where the staging folder lies."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pyarrow import fs

from imbdyn.trace import TraceError, TraceWriter
from imbdyn.trace._remote import Remote
from imbdyn.trace._staging import held, staging_folder, staging_root
from imbdyn.trace._store import filesystem_of, is_uri, public_uri


@pytest.mark.parametrize("place", ["runs/a", "s3:x", "s3:/bucket/x", "C:\\runs", "C:/runs", "C://runs", Path("runs")])
def test_a_local_path_is_never_taken_for_a_uri(place):
    assert not is_uri(place)
    filesystem, path = filesystem_of(place)
    assert isinstance(filesystem, fs.LocalFileSystem)
    assert path == str(Path(place).absolute())


def test_a_path_object_made_from_a_uri_is_an_error():
    with pytest.raises(TraceError, match=r"s3:/bucket/run is a URI that a path object has cut a slash from"):
        filesystem_of(Path("s3://bucket/run"))


@pytest.mark.parametrize(
    ("uri", "kind", "path"),
    [
        ("s3://b/runs/a%20b/?region=eu-west-1", "s3", "b/runs/a b"),
        ("s3://key:se%2Fcret@b/x?endpoint_override=127.0.0.1:9&scheme=http", "s3", "b/x"),
        ("gs://anonymous@b/x/", "gcs", "b/x"),
        ("file:///tmp/a%20b", "local", "/tmp/a b"),
    ],
)
def test_a_uri_is_a_filesystem_and_a_path_in_it(uri, kind, path):
    filesystem, found = filesystem_of(uri)
    assert (filesystem.type_name, found) == (kind, path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nosuch://u:secret@x", r"nosuch://x cannot be opened: Unrecognized filesystem type"),
        ("s3://u:secret@b/x?bogus=secret", r"s3://b/x cannot be opened: an S3 URI takes the options .*, not bogus"),
        ("s3:///x", r"s3:///x cannot be opened: an S3 URI names a bucket"),
        ("s3://u:secret@[b/x", r"s3://\.\.\. cannot be opened"),
        ("file://secret@host/x", r"file://host/x cannot be opened"),
    ],
)
def test_a_wrong_uri_is_one_plain_sentence_without_secrets(uri, message):
    with pytest.raises(TraceError, match=message) as caught:
        filesystem_of(uri)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("s3://key:secret@b/x/?scheme=http&endpoint_override=h:9", "s3://b/x?endpoint_override=h:9&scheme=http"),
        ("s3://b/x?region=eu&session_token=secret&X-Amz-Signature=secret#secret", "s3://b/x?region=eu"),
        ("gs://b/x?access_token=secret", "gs://b/x"),
        ("abfs://container:secret@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("hdfs://user@host:9000/x?kerb_ticket=secret&replication=2", "hdfs://host:9000/x?replication=2"),
    ],
)
def test_what_is_shown_of_a_uri_holds_no_secret(uri, public):
    assert public_uri(uri) == public


def test_the_staging_folder_does_not_depend_on_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("IMBDYN_STAGING", str(tmp_path))
    folder = staging_folder("s3://b/x", "run/1", 3)
    assert folder == staging_folder("s3://key:secret@b/x/?session_token=secret", "run/1", 3)
    assert folder.parent == tmp_path
    others = [
        staging_folder("s3://b/y", "run/1", 3),
        staging_folder("s3://b/x", "2", 3),
        staging_folder("s3://b/x", "run/1", 0),
    ]
    assert folder not in others
    assert len(set(others)) == 3


def test_the_staging_folder_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("IMBDYN_STAGING", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert staging_root() == tmp_path / "imbdyn" / "staging"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert staging_root() == tmp_path / ".cache" / "imbdyn" / "staging"


def test_a_hold_on_a_staging_folder_ends_with_its_process(tmp_path):
    script = f"""
import os, pathlib
from imbdyn.trace._staging import held
with held(pathlib.Path({str(tmp_path / "run")!r})):
    print("held", flush=True)
    input()
    os._exit(9)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    with pytest.raises(BlockingIOError, match="in use by a process that still writes"), held(tmp_path / "run"):
        pass
    holder.communicate(b"\n")
    with held(tmp_path / "run"):
        assert os.listdir(tmp_path) == ["run.lock"]  # noqa: PTH208
    assert list(tmp_path.iterdir()) == []


def test_where_files_do_not_appear_whole_they_are_moved_into_place(tmp_path):
    remote = Remote(tmp_path.as_uri() + "/run")
    seen = []

    class Source(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append(sorted(path.name for path in (tmp_path / "run" / "steps").iterdir()))
            return super().read(size)

    for content in (b"first", b"second"):
        remote.write("steps/part", Source(content))
        assert (tmp_path / "run" / "steps" / "part").read_bytes() == content
    assert seen[0] == [".part.tmp"]
    assert seen[-1] == [".part.tmp", "part"]
    assert remote.files() == {"steps/part": 6}
    (tmp_path / "local").write_bytes(b"secone")
    assert not remote.holds("steps/part", tmp_path / "local")
    (tmp_path / "local").write_bytes(b"second")
    assert remote.holds("steps/part", tmp_path / "local")
    assert not remote.holds("steps/absent", tmp_path / "local")


def test_a_file_uri_is_the_local_folder(tmp_path):
    writer = TraceWriter(tmp_path.as_uri() + "/a%20run")
    writer.close("finished")
    assert writer.path == tmp_path / "a run"
    assert (tmp_path / "a run" / "run.json").exists()
