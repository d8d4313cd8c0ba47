"""An S3 server on loopback (moto) behind a proxy that makes faults: what a trace may meet in an object store."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["none", "refuse", "503", "slow", "silent", "cut", "expired"]

#: A body under fault "slow" waits so long after each piece that comes.
SLOW_SECONDS = 1.0

_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3:
    """The server as a client sees it: through the proxy, which does what `fault` says."""

    def __init__(self, server_port: int) -> None:
        self.fault: Fault = "none"
        #: Requests that a fault has struck since it began.
        self.faults = 0
        #: Requests with this access key are answered as those of an expired one, under fault "expired".
        self.expired_key = ""
        #: Called once, before the first request that begins with its key is passed on.
        self.before: dict[str, Callable[[], None]] = {}
        self._recovered = threading.Event()
        #: Method and path of each request that came, faults included.
        self.requests: list[str] = []
        #: Set when the first part of an upload's body has come.
        self.in_upload = threading.Event()
        self._server_port = server_port
        self._open: set[socket.socket] = set()
        self._proxy: ThreadingHTTPServer | None = None
        self.port = 0
        self.listen()

    def uri(self, path: str, key: str = "") -> str:
        """Return the URI of `path` (bucket first); `key` is access key and secret key."""
        user = f"{key}:{key}@" if key else ""
        return f"s3://{user}{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def begin(self, fault: Fault, key: str = "") -> None:
        """Make a fault; `key` is the access key that has expired."""
        self.faults, self.expired_key = 0, key
        self._recovered.clear()
        self.fault = fault
        if fault == "refuse":
            self.refuse()

    def recover(self) -> None:
        """End the fault; what it held up goes on."""
        self.fault = "none"
        self._recovered.set()
        if self._proxy is None:
            self.listen()

    def struck(self, wait: float = 0.0) -> None:
        """Count a request that a fault strikes, which waits until the fault has ended, at most `wait` seconds."""
        self.faults += 1
        self._recovered.wait(wait)

    def listen(self) -> None:
        """Take connections (again), on the port of before."""
        proxy = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        proxy.daemon_threads = True
        self.port = proxy.server_port
        self._proxy = proxy
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections until `listen`, and drop those that are open."""
        if self._proxy is not None:
            self._proxy.shutdown()
            self._proxy.server_close()
            self._proxy = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _handler(s3: S3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for the ACK of its head

        def setup(self) -> None:
            super().setup()
            s3._open.add(self.connection)

        def finish(self) -> None:
            s3._open.discard(self.connection)
            super().finish()

        def log_message(self, *_: object) -> None:
            return

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                return  # the client, or a fault, has cut the connection

        def pass_on(self) -> None:
            s3.requests.append(f"{self.command} {self.path}")
            for start in [start for start in s3.before if s3.requests[-1].startswith(start)]:
                s3.before.pop(start)()
            body = b"".join(self.body())
            if s3.fault == "silent":
                s3.struck(wait=3600)
                raise ConnectionAbortedError
            if s3.fault == "503":
                s3.struck()
                self.answer(503, [], _BUSY)
            elif s3.fault == "expired" and f"Credential={s3.expired_key}/" in self.headers.get("Authorization", ""):
                s3.struck()
                self.answer(403, [], _EXPIRED)
            else:
                server = HTTPConnection("127.0.0.1", s3._server_port)
                server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "transfer-encoding", "content-length"):
                        server.putheader(name, value)
                server.putheader("Content-Length", str(len(body)))
                server.endheaders(body)
                answer = server.getresponse()
                self.answer(answer.status, answer.getheaders(), answer.read(), answer.getheader("Content-Length"))
                server.close()

        def body(self) -> Iterator[bytes]:
            """Yield the body, however it comes; a fault may strike after the first piece of an upload."""
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            length = int(self.headers.get("Content-Length", 0))
            while piece := self.rfile.read(int(self.rfile.readline(), 16) if chunked else min(length, 8192)):
                yield piece
                length -= len(piece)
                if chunked:
                    self.rfile.readline()
                if self.command == "PUT":
                    s3.in_upload.set()
                    if s3.fault == "cut":
                        s3.struck()
                        raise ConnectionAbortedError  # ends the connection
                    if s3.fault == "slow":
                        s3.struck(wait=SLOW_SECONDS)
            if chunked:
                self.rfile.readline()

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815 - names that http.server calls

    return Handler


@contextmanager
def s3_server() -> Iterator[S3]:
    """Serve S3 with one empty bucket, "bucket", in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    s3 = S3(port)
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("PUT", "/bucket")
        assert connection.getresponse().status == 200
    try:
        yield s3
    finally:
        s3.refuse()
        server.stop()
