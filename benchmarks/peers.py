"""What does resolving a training step by class cost, with each tool that can?

Each way trains whole steps (forward, backward, optimizer) and yields, for every parameter, the Gram matrix of the class
gradients: norms, cosines and conflicts. Each case and way has a fresh process, in which blocks of bare steps and of the
way's steps alternate, so that the ratios hold on a noisy machine; medians over the blocks are shown.

    imbdyn            Monitor(interval=1): every parameter, every step
    a class           one backward pass a class (imbdyn.reference.class_gradients)
    Opacus            per-sample gradients (grad_sample_mode="hooks"), summed by class
    Opacus ghost      norms of per-sample gradients (grad_sample_mode="ghost"), blind to classes: the norm of a sum does
                      not follow from the norms of its terms
    BackPACK          per-sample gradients (BatchGrad), summed by class
    vmap              per-sample gradients (torch.func.vmap of grad), summed by class

Where a tool yields the whole gradient by the way (a class, vmap) no second backward pass is run for it. A tool that
refuses a case is shown with its own words. `differs` is the largest difference of the network's class gradient norms
in the first step from those of `a class`, relative to the largest: rounding, except where BatchNorm mixes the samples.
There imbdyn and BackPACK partition the real gradient by rows, while `a class` differentiates each class's loss.

`memory` is the peak of resident memory in the second step, beyond what the process had before there was a network,
over the bare step's: parameters, gradients, activations and whatever the tool holds. `first` in the JSON is that of the
first step, in which imbdyn learns the network. The system counts it (VmHWM of Linux), since torch's own figures miss
what compiled kernels take. A step with two samples comes before, so that code and thread pools are loaded.

    python benchmarks/peers.py [--json benchmarks/results/peers.json]     (extra: bench)
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imbdyn
from imbdyn.bench.networks import CASES, Case
from imbdyn.bench.report import write_report
from imbdyn.reference import class_gradients

PEERS = ("opacus", "backpack-for-pytorch")
#: Seconds that a block of steps takes, or one step if that takes longer.
BLOCK_SECONDS = 0.1


class Way:
    """A training loop over one batch; this one is the bare loop."""

    def __init__(self, case: Case, folder: Path, samples: int | None = None) -> None:
        self.classes = case.classes
        self.x, self.y = case.batch(samples)
        self.model = case.model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.folder = folder
        self.norms: Tensor | None = None
        self.prepare()

    def prepare(self) -> None:
        """Put the tool on model and optimizer."""

    def step(self) -> None:
        norms = self.forward_backward()
        self.norms = norms if self.norms is None else self.norms
        self.optimizer.step()
        self.optimizer.zero_grad()

    def forward_backward(self) -> Tensor | None:
        """Fill p.grad and resolve it by class; return the network's norms [C] if they are in hand."""
        self.loss().backward()
        return None

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model(self.x), self.y)

    def close(self) -> None:
        """Take the tool away again."""

    def first_norms(self) -> Tensor | None:
        """Return the network's class gradient norms [C] in the first step of a way that is closed."""
        return self.norms

    def by_class(self, samples: Iterable[Tensor], scale: float = 1.0) -> Tensor:
        """Resolve per-sample gradients [N, ...] of each parameter, times `scale`, by class."""
        return self.resolved(
            sample.new_zeros(self.classes, sample[0].numel()).index_add_(0, self.y, sample.flatten(1), alpha=scale)
            for sample in samples
        )

    def resolved(self, gradients: Iterable[Tensor]) -> Tensor:
        """Compute the Gram matrix of class gradients [C, ...] of each parameter; return the network's norms."""
        grams = [gradient.flatten(1) @ gradient.flatten(1).T for gradient in gradients]
        return torch.stack(grams).sum(0).diagonal().sqrt()


class Imbdyn(Way):
    def prepare(self) -> None:
        self.monitor = imbdyn.Monitor(self.model, self.optimizer, self.classes, self.folder, interval=1)

    def forward_backward(self) -> None:
        with self.monitor.batch(self.y):
            self.loss().backward()

    def first_norms(self) -> Tensor:
        rows = imbdyn.open_trace(self.folder).class_gradients.query("step == 1 and parameter == '*'")
        norms = torch.zeros(self.classes)
        norms[rows.class_id.tolist()] = torch.tensor(rows.grad_norm.tolist())
        return norms

    def close(self) -> None:
        self.monitor.close()


class BackwardAClass(Way):
    def forward_backward(self) -> Tensor:
        losses = F.cross_entropy(self.model(self.x), self.y, reduction="none") / len(self.y)
        gradients = class_gradients(losses, self.y, self.classes, self.model.named_parameters())
        for name, p in self.model.named_parameters():
            p.grad = gradients[name].sum(0)
        return self.resolved(gradients.values())


class Opacus(Way):
    mode = "hooks"

    def prepare(self) -> None:
        from opacus.grad_sample import wrap_model

        self.model: nn.Module = wrap_model(self.model, grad_sample_mode=self.mode, **self.options())

    def options(self) -> dict[str, object]:
        return {}

    def forward_backward(self) -> Tensor | None:
        self.loss().backward()
        # under loss_reduction="mean" Opacus hands out the gradients of the samples' own losses
        norms = self.by_class((p.grad_sample for p in self.model.parameters()), scale=1 / len(self.y))
        for p in self.model.parameters():
            p.grad_sample = None
        return norms


class OpacusGhost(Opacus):
    mode = "ghost"

    def options(self) -> dict[str, object]:
        return {"max_grad_norm": 1.0, "use_ghost_clipping": True}

    def forward_backward(self) -> None:
        self.loss().backward()
        self.model.get_norm_sample()


class BackPack(Way):
    def prepare(self) -> None:
        from backpack import extend

        self.model = extend(self.model)

    def forward_backward(self) -> Tensor:
        from backpack import backpack
        from backpack.extensions import BatchGrad

        with backpack(BatchGrad()):
            self.loss().backward()
        norms = self.by_class(p.grad_batch for p in self.model.parameters())
        for p in self.model.parameters():
            del p.grad_batch
        return norms


class Vmap(Way):
    def forward_backward(self) -> Tensor:
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}
        buffers = dict(self.model.named_buffers())

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = torch.func.functional_call(self.model, (parameters, buffers), x[None])
            return F.cross_entropy(logits, y[None]) / len(self.y)

        samples = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, self.x, self.y)
        for name, p in self.model.named_parameters():
            p.grad = samples[name].sum(0)
        return self.by_class(samples.values())


BARE = "bare"
#: `a class` comes first: the others' numbers are compared with its.
WAYS: dict[str, type[Way]] = {
    BARE: Way,
    "a class": BackwardAClass,
    "imbdyn": Imbdyn,
    "Opacus": Opacus,
    "Opacus ghost": OpacusGhost,
    "BackPACK": BackPack,
    "vmap": Vmap,
}


def seconds(way: Way, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        way.step()
    return (time.perf_counter() - start) / steps


def first_steps(case: Case, kind: type[Way], folder: Path) -> tuple[Way, list[int]]:
    """Return a way after two steps, and by how many bytes each of them raised the resident memory of this process."""
    small = kind(case, folder / "small", samples=2)
    small.step()
    small.close()
    del small
    gc.collect()
    _trim()
    before = _resident("VmRSS")
    _forget_the_peak()
    way = kind(case, folder / "run")
    peaks = []
    for _ in range(2):
        way.step()
        peaks.append(_resident("VmHWM") - before)
        _trim()
        _forget_the_peak()
    return way, peaks


def _trim() -> None:
    """Give back what is free, but still resident: it would hide as much of what is to come."""
    ctypes.CDLL(None).malloc_trim(0)


def _forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])


def measure(case: Case, kind: type[Way], limit: float) -> dict[str, Any]:
    """Return what one way costs in one case, from blocks that take `limit` seconds or one of each."""
    with tempfile.TemporaryDirectory() as folder:
        way, (first, peak) = first_steps(case, kind, Path(folder))
        bare = Way(case, Path(folder))
        bare.step()
        end = time.perf_counter() + limit
        steps = 1 + int(BLOCK_SECONDS / seconds(bare, 1))
        bare_seconds, ratios = [], []
        way_steps = 1
        while not ratios or time.perf_counter() < end:
            bare_seconds.append(seconds(bare, steps))
            way_seconds = seconds(way, way_steps)
            ratios.append(way_seconds / bare_seconds[-1])
            way_steps = 1 + int(BLOCK_SECONDS / way_seconds)
        way.close()
        norms = way.first_norms()
    return {
        "bare_ms": 1e3 * statistics.median(bare_seconds),
        "ratio": statistics.median(ratios),
        "blocks": len(ratios),
        "first_peak_mib": first / 2**20,
        "peak_mib": peak / 2**20,
        "norms": None if norms is None else norms.tolist(),
    }


def measure_or_refuse(case: Case, kind: type[Way], limit: float) -> dict[str, Any]:
    """Measure, or say why the tool does not take this network; and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = measure(case, kind, limit)
        except Exception as refusal:  # each tool refuses with errors of its own
            result = {"refused": f"{type(refusal).__name__}: {first_line(refusal)}"}
    return result | {"warned": sorted({first_line(warning.message) for warning in caught})}


def first_line(error: Warning | Exception | str) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def in_a_fresh_process(case: str, way: str, limit: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", case, way, "--seconds", str(limit)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:  # killed for its memory, perhaps
        return {"refused": f"exit code {ended.returncode}: {ended.stderr.strip()[-200:]}", "warned": []}
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def compare(name: str, limit: float) -> dict[str, dict[str, Any]]:
    """Measure all ways in one case and print a line for each."""
    results, reference = {}, None
    for way in WAYS:
        result = results[way] = in_a_fresh_process(name, way, 0 if way == BARE else limit)
        norms = result.pop("norms", None)
        if "refused" not in result:
            result["memory"] = result["peak_mib"] / results[BARE]["peak_mib"]
            result["first"] = result["first_peak_mib"] / results[BARE]["first_peak_mib"]
        if norms is not None:
            reference = reference or norms
            result["differs"] = max(abs(a - b) for a, b in zip(norms, reference, strict=True)) / max(reference)
        if way != BARE:
            print(f"{name:<34}{way:<14}{line(result)}", flush=True)
    return results


def line(result: dict[str, Any]) -> str:
    if "refused" in result:
        return f"    refused: {result['refused'][:150]}"
    differs = f"{result['differs']:>10.0e}" if "differs" in result else f"{'':>10}"
    return f"{result['bare_ms']:>9.2f}{result['ratio']:>9.2f}x{result['memory']:>9.2f}x{differs}{result['blocks']:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="time for the blocks of a case and way (default: 2)")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--one", nargs=2, metavar=("CASE", "WAY"), help="measure one way in this process, and print JSON"
    )
    options = parser.parse_args()
    logging.getLogger("opacus").setLevel(logging.WARNING)  # it would report each module that it wraps
    if options.one:
        case, way = options.one
        print(json.dumps(measure_or_refuse(CASES[case], WAYS[way], options.seconds)))
        return
    print(f"{'':<48}{'bare ms':>9}{'time':>10}{'memory':>10}{'differs':>10}{'blocks':>8}")
    results = {name: compare(name, options.seconds) for name in CASES if options.cases in name}
    if options.json:
        write_report(options.json, peers={peer: version(peer) for peer in PEERS}, cases=results)


if __name__ == "__main__":
    main()
