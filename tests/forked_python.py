"""Scripts in processes of their own that need not wait for an import of torch.

It takes five seconds of processor time. One process has done it, computed nothing, and is forked for each script, which
imports imbdyn itself, and runs, prints, fails and ends as one that `python -c` was given.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

#: Of a request in bytes: a packet is read whole or not at all.
_LARGEST = 200_000


class ForkedPython:
    """Runs scripts in forks of a process that has imported torch."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server

    def __call__(
        self, script: str, *arguments: object, environment: dict[str, str] | None = None, seconds: int = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a script to its end and return its exit code and what it printed.

        Args:
            script: Python code.
            arguments: its sys.argv[1:].
            environment: what is added to its environment.
            seconds: it is killed by SIGALRM after so many.

        Processes that it leaves behind are killed: they may hold its stdout, and the read of that would never end.
        """
        request = {
            "script": script,
            "arguments": [str(argument) for argument in arguments],
            "environment": environment or {},
            "seconds": seconds,
            "path": sys.path,
        }
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        socket.send_fds(self._server, [json.dumps(request).encode()], [out_end, err_end])
        os.close(out_end)
        os.close(err_end)
        with os.fdopen(out, "rb") as stdout, os.fdopen(err, "rb") as stderr:
            printed = stdout.read(), stderr.read()
        code = int(self._server.recv(100))
        return subprocess.CompletedProcess([script, *request["arguments"]], code, *printed)


@contextmanager
def forked_python() -> Iterator[ForkedPython]:
    """Start the process that is forked, and end it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        # A script may fork where torch has threads, which Python 3.12 warns of.
        command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", __file__, str(theirs.fileno())]
        inherited = {k: v for k, v in os.environ.items() if k != "IMBDYN_FORCE_ISA"}
        environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path)}
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        try:
            yield ForkedPython(ours)
        finally:
            ours.close()
            server.wait()


def _wait_for_script(client: socket.socket) -> dict[str, object] | None:
    """Fork for each request. Return it in the child, and None once nobody asks any more."""
    while True:
        packet, pipes, _, _ = socket.recv_fds(client, _LARGEST, 2)
        if not packet:
            return None
        child = os.fork()
        if child == 0:
            client.close()
            os.setsid()
            for number, pipe in enumerate(pipes, start=1):
                os.dup2(pipe, number)
                os.close(pipe)
            request: dict[str, object] = json.loads(packet)
            return request
        for pipe in pipes:
            os.close(pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        client.send(str(code).encode())


if __name__ == "__main__":
    for name in ("torch._dynamo", "pandas", "pyarrow.dataset"):  # what an optimizer and a trace import
        import_module(name)
    gc.freeze()  # else a fork that ends copies every page to look for garbage
    request = _wait_for_script(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        os.environ.update(request["environment"])  # type: ignore[call-overload]
        sys.path[:] = request["path"]  # type: ignore[call-overload]
        sys.argv[1:] = request["arguments"]  # type: ignore[call-overload]
        signal.alarm(request["seconds"])  # type: ignore[arg-type]
        exec(compile(str(request["script"]), "<script>", "exec"), {"__name__": "__main__"})
