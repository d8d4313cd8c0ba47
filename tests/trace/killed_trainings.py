"""Train in many processes, and end each at a random instant: its arguments are FOLDER RUNS SIGNAL SEED.

Every run writes the trace FOLDER/<i>, and to FOLDER/<i>.steps a byte for each optimizer step that has returned. Their
exit codes are printed. The runs are forked.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import imbdyn
from imbdyn.trace import TraceWriter


def train(out: Path, done: Path) -> None:
    # Sealed many times a run, so that the end comes at every point of a seal too.
    TraceWriter.__init__.__kwdefaults__.update(flush_seconds=0.02, fsync_seconds=0.01)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(32, 8), torch.randint(0, 4, (32,))
    returned = os.open(done, os.O_WRONLY | os.O_CREAT)
    with imbdyn.Monitor(model, optimizer, 4, out, interval=1) as monitor:
        while True:
            with monitor.batch(y):
                F.cross_entropy(model(x), y).backward()
            optimizer.step()
            os.write(returned, b".")
            optimizer.zero_grad()


def wait_for_a_step(done: Path) -> None:
    end = time.monotonic() + 60
    while not (done.exists() and done.stat().st_size) and time.monotonic() < end:
        time.sleep(0.001)


def end(child: int, number: int) -> int:
    """End a training by a signal, and return its exit code.

    Python drops the KeyboardInterrupt that comes in a destructor: whoever pressed Ctrl-C presses it again.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        os.kill(child, number)
        again = time.monotonic() + 3
        while time.monotonic() < again:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"signal {number} did not end a training in 30 s")


def main() -> None:
    folder, runs, number, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    draw = random.Random(seed)
    for run in range(runs):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(folder / str(run), folder / f"{run}.steps")
            except KeyboardInterrupt:
                code = 130
            finally:
                os._exit(code)
        if run % 5:  # every fifth is ended while it starts
            wait_for_a_step(folder / f"{run}.steps")
        time.sleep(draw.uniform(0.0, 0.4))
        sys.stdout.write(f"{end(child, number)}\n")


if __name__ == "__main__":
    main()
