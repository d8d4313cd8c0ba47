"""What does a monitored training step cost on this GPU, and a training under the default budget?

ResNet-50 (torchvision or timm, channels_last) and ViT-B/16, bf16 autocast, torch.compile, one batch of random images.
Bare and monitored blocks of steps take turns; a block is timed from an idle GPU to an idle GPU.

    sampled   a step whose class gradients are read, over the bare step
    where     of a bare and of a sampled step: what the host takes until all is in the GPU's queue, what the GPU's
              kernels take together (torch.profiler, one step), and the longest of them. Where the host takes longer
              than the kernels, it is the host that a step waits for
    realised  a training under the default budget over the bare one; `said` is 1 + overhead.share, as in run.json

    python benchmarks/gpu_steps.py [--cases TEXT] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

import imbdyn

#: Class counts fall from the first to the last class by this factor.
IMBALANCE_RATIO = 100


class Network(NamedTuple):
    """A model that is trained, and its batches."""

    model: Callable[[int], nn.Module]
    classes: int
    images: int
    compiled: bool = True


def resnet50(classes: int) -> nn.Module:
    import timm

    return timm.create_model("resnet50", num_classes=classes).to(memory_format=torch.channels_last)


def vit_b(classes: int) -> nn.Module:
    import timm

    return timm.create_model("vit_base_patch16_224", num_classes=classes)


#: The most wanted first: what there is no time for is left out.
CASES = {
    "ViT-B/16, N 128, C 10": Network(vit_b, 10, 128),
    "ResNet-50, N 128, C 10, eager": Network(resnet50, 10, 128, compiled=False),
    "ResNet-50, N 128, C 10": Network(resnet50, 10, 128),
    "ViT-B/16, N 128, C 1000": Network(vit_b, 1000, 128),
    "ResNet-50, N 128, C 1000": Network(resnet50, 1000, 128),
}


class Loop:
    """A training on one batch; monitored where it has a folder."""

    def __init__(self, case: Network, folder: Path | None = None) -> None:
        torch.manual_seed(0)
        self.module = case.model(case.classes).cuda().train()
        self.model = torch.compile(self.module) if case.compiled else self.module
        self.x = torch.randn(case.images, 3, 224, 224, device="cuda").contiguous(memory_format=torch.channels_last)
        weight = IMBALANCE_RATIO ** -torch.linspace(0, 1, case.classes, device="cuda")
        self.y = torch.multinomial(weight, case.images, replacement=True)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-3, momentum=0.9)
        self.monitor = None
        if folder is not None:
            self.monitor = imbdyn.Monitor(self.model, self.optimizer, case.classes, folder)

    def step(self) -> None:
        if self.monitor is None:
            self.forward_backward()
        else:
            with self.monitor.batch(self.y):
                self.forward_backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forward_backward(self) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            output = self.model(self.x)
        F.cross_entropy(output.float(), self.y).backward()

    def seconds(self, steps: int) -> float:
        """Train so many steps; return the seconds of one."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps


def measure(case: Network, blocks: int, steps: int, budget_seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        bare, monitored = Loop(case), Loop(case, Path(name) / "run")
        first_steps = {}
        for loop, which in ((bare, "bare"), (monitored, "monitored")):
            started = time.perf_counter()
            loop.seconds(4)  # learns the model, and compiles: steps 1, 2 and 4 are sampled
            first_steps[which] = time.perf_counter() - started
        found: dict[str, object] = {"first_steps_s": first_steps}
        if budget_seconds:
            found["budget"] = realised(bare, monitored, budget_seconds)
        monitored.monitor._cadence._interval = 1  # from here on every step is sampled, in the graph that is there
        held = torch.cuda.memory_allocated()
        for loop, which in ((bare, "bare"), (monitored, "sampled")):
            torch.cuda.reset_peak_memory_stats()
            loop.seconds(2)
            found[f"{which}_activations_mib"] = (torch.cuda.max_memory_allocated() - held) / 2**20
        bare_s, sampled_s = [], []
        for _ in range(blocks):
            bare_s.append(bare.seconds(steps))
            sampled_s.append(monitored.seconds(steps))
        found["where"] = {which: where(loop) for loop, which in ((bare, "bare"), (monitored, "sampled"))}
        monitored.monitor.close()
        trace = imbdyn.open_trace(Path(name) / "run")
        ratios = [s / b for s, b in zip(sampled_s, bare_s, strict=True)]
        return found | {
            "bare_ms": 1e3 * statistics.median(bare_s),
            "sampled": statistics.median(ratios),
            "sampled_spread": ratios,
            "coverage": trace.run["coverage"]["share"],
            "largest_residual": float(trace.parameters["residual"].max()),
            "problems": trace.run["problems"],
        }


def where(loop: Loop, longest: int = 15) -> dict[str, object]:
    """What one step takes of the host and of the GPU, apart from each other."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    loop.step()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            loop.step()
            torch.cuda.synchronize()
    except RuntimeError as error:  # without the profiling library, or where another holds it; the rest is measured
        return {"host_ms": 1e3 * host, "error": str(error)[:300]}
    kernels = sorted(recorded.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    return {
        "host_ms": 1e3 * host,
        "gpu_ms": sum(kernel.self_device_time_total for kernel in kernels) / 1e3,
        "launches": sum(kernel.count for kernel in kernels),
        "longest": [
            {"kernel": kernel.key[:100], "ms": kernel.self_device_time_total / 1e3, "calls": kernel.count}
            for kernel in kernels[:longest]
        ],
    }


def realised(bare: Loop, monitored: Loop, seconds: float) -> dict[str, object]:
    """A monitored training of about so many seconds between two halves of a bare one of as many steps."""
    steps = max(20, int(seconds / bare.seconds(5)))
    before = bare.seconds(steps // 2)
    between = monitored.seconds(steps)
    after = bare.seconds(steps // 2)
    overhead = monitored.monitor.state_dict()["overhead"]
    return {
        "steps": steps,
        "realised": 2 * between / (before + after),
        "bare_halves_ms": [1e3 * before, 1e3 * after],
        "said": 1 + (overhead["share"] or 0.0),
        "sampled_per_1000": 1000 * overhead["sampled_steps"] / overhead["steps"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="of a block")
    parser.add_argument("--budget-seconds", type=float, default=8, help="of a training under the budget; 0: none")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    results: dict[str, object] = {}
    for name, case in CASES.items():
        if options.cases not in name:
            continue
        try:
            found = measure(case, options.blocks, options.steps, options.budget_seconds)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        results[name] = found
        print(name, json.dumps(found), flush=True)
        if options.json:  # after each: the whole may be stopped
            options.json.write_text(json.dumps(results, indent=1))
        torch.compiler.reset()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
