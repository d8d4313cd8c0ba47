"""A trace that goes to an S3 server which fails: training goes on, and nothing is lost that can be sent later.

The server is real (moto, over HTTP on loopback); the faults are made by a proxy in front of it.
"""

import signal
import subprocess
import sys
import textwrap
from time import monotonic, sleep

import pytest
from store_runs import run_at, staging_is_empty, steps_at, train, wait_until

from imbdyn.trace import TraceWriter, _upload
from imbdyn.trace._remote import Remote
from imbdyn.trace._resend import send_staged
from imbdyn.trace._staging import parts_in, staged
from imbdyn.trace._upload import UnsentError

#: A commit waits for no network: the slowest fault below takes a second and more, a commit a fraction of a millisecond.
LONGEST_COMMIT = 0.8


def test_parts_are_in_the_store_while_the_run_goes_on_and_leave_the_staging_folder(uri, tmp_path):
    writer = TraceWriter(uri)
    assert writer.path.parent == tmp_path / "staging"
    for first in (1, 11, 21):
        train(writer, range(first, first + 10))
        writer.flush()
    wait_until(lambda: sum(name.startswith("steps/") for name in Remote(uri).files()) == 3)
    assert steps_at(uri) == list(range(1, 31))
    wait_until(lambda: len(parts_in(writer.path)) == 2)  # the last of each table, which tells where it ends
    assert run_at(uri)["status"] == "running"
    assert run_at(uri)["staging"]["path"] == str(writer.path)
    writer.close("finished")
    assert run_at(uri)["status"] == "finished"
    assert (
        sorted(name.partition("/")[0] for name in Remote(uri).files()) == ["classes"] * 3 + ["run.json"] + ["steps"] * 3
    )
    assert staging_is_empty(tmp_path)


@pytest.mark.parametrize("fault", ["refuse", "503", "slow", "cut"])
def test_a_fault_in_mid_run_does_not_hold_up_training_and_loses_nothing(s3, uri, tmp_path, fault):
    writer = TraceWriter(uri)
    train(writer, range(1, 6))
    writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    s3.begin(fault)
    slowest = 0.0
    for first in (6, 11, 16):
        slowest = max(slowest, train(writer, range(first, first + 5)))
        start = monotonic()
        writer.flush()  # seals on the local disk
        slowest = max(slowest, monotonic() - start)
    if fault != "refuse":
        wait_until(lambda: s3.faults > 0)
    else:
        wait_until(lambda: writer._uploader._failure is not None)
    slowest = max(slowest, train(writer, range(21, 31)))
    assert slowest < LONGEST_COMMIT
    s3.recover()
    writer.close("finished")
    assert steps_at(uri) == list(range(1, 31))
    assert steps_at(uri, "classes") == sorted([*range(1, 31)] * 2)
    assert run_at(uri)["status"] == "finished"
    assert staging_is_empty(tmp_path)


def test_credentials_that_expire_are_read_again(s3, uri, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    credentials.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = old\n")
    writer = TraceWriter(uri)
    train(writer, range(1, 6))
    writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    s3.begin("expired", key="old")
    train(writer, range(6, 11))
    writer.flush()
    wait_until(lambda: s3.faults > 1)
    credentials.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = new\n")
    wait_until(lambda: steps_at(uri) == list(range(1, 11)))  # by the writer's own doing, while it is open
    writer.close("finished")


def test_close_says_what_stays_and_it_can_be_sent_later(s3, uri, tmp_path, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.5)
    writer = TraceWriter(uri)
    s3.begin("503")
    train(writer, range(1, 6))
    with pytest.raises(
        UnsentError, match=rf"3 files of the trace were not sent to {uri.partition('?')[0]}.*503"
    ) as caught:
        writer.close("finished")
    assert f"stay in {writer.path}, and `imbdyn check 's3://" in str(caught.value)
    s3.recover()
    assert staged(uri) == [writer.path]
    assert run_at(uri)["status"] == "running"
    sent = send_staged(writer.path)
    assert sorted(name.partition("/")[0] for name in sent[:-1]) == ["classes", "steps"]
    assert sent[-1] == "run.json", "what it speaks of is there before it"
    assert steps_at(uri) == [1, 2, 3, 4, 5]
    assert run_at(uri)["status"] == "finished"
    assert staging_is_empty(tmp_path)


def test_a_silent_store_holds_up_the_end_only_for_a_bounded_time(s3, uri, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.5)
    writer = TraceWriter(uri)
    train(writer, range(1, 3))
    s3.begin("silent")
    writer.flush()
    wait_until(lambda: s3.faults > 0)
    start = monotonic()
    with pytest.raises(UnsentError, match=r"the store was not done after 0\.5 s"):
        writer.close("finished")
    assert monotonic() - start < 10
    s3.recover()
    send_staged(writer.path)
    assert steps_at(uri) == [1, 2]


def test_a_store_that_takes_nothing_is_reported_once(s3, uri, monkeypatch):
    monkeypatch.setattr(_upload, "REPORT_SECONDS", 0.1)
    writer = TraceWriter(uri, fsync_seconds=0.05)
    s3.begin("503")
    train(writer, range(1, 3))
    writer.flush()
    errors = []
    for step in range(3, 153):
        try:
            train(writer, range(step, step + 1))
        except UnsentError as error:
            errors.append(str(error))
        sleep(0.002)
    [error] = errors
    assert "has taken nothing for 0 s: " in error
    assert f"; what is not sent waits in {writer.path}, and is sent when it can be" in error
    s3.recover()
    writer.close("finished")
    assert steps_at(uri) == list(range(1, 153))


def test_a_process_killed_in_mid_upload_loses_nothing(s3, uri, tmp_path, request):
    script = f"""
        import time
        from imbdyn.trace import TraceWriter
        writer = TraceWriter({uri!r})
        print("open", flush=True)
        input()
        for step in range(1, 31):
            writer.append("classes", step=step, split="train", class_id=[0, 1])
            writer.append("steps", step=step, split="train")
            writer.commit()
            if step % 10 == 0 and step < 30:
                writer.flush()
        print("committed", flush=True)
        time.sleep(3600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    request.addfinalizer(process.kill)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    s3.begin("slow")
    s3.in_upload.clear()
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert s3.in_upload.wait(60)
    [folder] = staged(uri)
    with pytest.raises(BlockingIOError, match="in use by a process that still writes or sends"):
        send_staged(folder)
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    s3.recover()
    assert len(parts_in(folder)) == 4  # of steps 1 to 20; the first was on its way
    sent = send_staged(folder)
    assert len(sent) >= 5
    assert steps_at(uri) == list(range(1, 31))  # the last ten were in the journal only
    assert steps_at(uri, "classes") == sorted([*range(1, 31)] * 2)
    assert staging_is_empty(tmp_path)


def test_a_part_that_was_sent_before_the_process_died_is_not_sealed_again(uri, monkeypatch):
    writer = TraceWriter(uri)
    train(writer, range(1, 6))
    with monkeypatch.context() as broken:  # the process dies between the part and the removal of its segment
        broken.setattr(writer._sealer, "remove", lambda _segment: (_ for _ in ()).throw(OSError("dead")))
        with pytest.raises(OSError, match="dead"):
            writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    folder = writer.path
    assert sorted(path.suffix for path in (folder / "_journal").iterdir()) == [".journal"]
    writer._uploader._hold.close()
    assert send_staged(folder) == []
    assert steps_at(uri) == [1, 2, 3, 4, 5]


def test_what_the_store_did_not_keep_is_sent_again(uri, monkeypatch):
    whole = Remote._send
    cut = []

    def lose_the_end(self: Remote, source, path: str) -> None:
        if path.endswith(".parquet") and not cut:
            cut.append(path)
            with self._filesystem.open_output_stream(path) as out:
                out.write(source.read()[:-1])
        else:
            whole(self, source, path)

    monkeypatch.setattr(Remote, "_send", lose_the_end)
    writer = TraceWriter(uri)
    train(writer, range(1, 4))
    writer.close("finished")
    assert cut
    assert steps_at(uri) == steps_at(uri, "classes")[::2] == [1, 2, 3]


@pytest.mark.parametrize("fault", ["refuse", "503"])
def test_a_store_that_does_not_answer_at_the_start_is_an_error(s3, uri, tmp_path, fault):
    s3.begin(fault)
    with pytest.raises(OSError, match="AWS Error"):
        TraceWriter(uri)
    assert not (tmp_path / "staging").exists() or staging_is_empty(tmp_path)


def test_a_bucket_that_does_not_exist_is_an_error_without_credentials_in_it(s3):
    with pytest.raises(OSError, match="The specified bucket does not exist") as caught:
        TraceWriter(s3.uri("nosuch/run", key="SECRET"))
    assert "SECRET" not in str(caught.value)


def test_credentials_in_the_uri_are_in_no_file(s3, request, tmp_path, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.3)
    uri = s3.uri(f"bucket/{request.node.name}", key="SECRET")
    writer = TraceWriter(uri)
    train(writer, range(1, 3))
    writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    s3.begin("503")
    train(writer, range(3, 5))
    with pytest.raises(UnsentError) as caught:
        writer.close("finished")
    s3.recover()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if b"SECRET" in path.read_bytes() or "SECRET" in str(path)]
    assert "SECRET" not in str(caught.value)
    send_staged(writer.path)
    assert b"SECRET" not in (Remote(uri).read_record("run.json") or b"")
