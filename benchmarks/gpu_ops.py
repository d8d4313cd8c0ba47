"""What does each op cost on this GPU, beside the copy bandwidth and beside torch's own routines?

`ms` is the GPU's own time: medians by events around calls for which the GPU was made to wait until all of their
launches were in its queue. 256 MiB are read between two calls, so that nothing is found in the cache, nor has the call
to write back what others left there. `host_us` is what a call takes of the host before it returns; a
training step whose host is behind pays that instead.

    python benchmarks/gpu_ops.py [--cases TEXT] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from gpu_cases import Case

#: What is read to empty the cache.
FLUSHED = torch.zeros(1 << 26, device="cuda")

FAMILIES = ("class_moments", "class_logits", "class_gram", "norm_gradients", "parameter_norms")


#: How `ms` and `host_us` were measured: goes into the JSON.
METHOD = "ms: events, the GPU held back until a call is in its queue, 256 MiB read before; host_us: until calls return"

#: Cycles of the fastest clock in a second: a GPU that counts slower is held back longer.
CYCLES = 2e9

MOST_CALLS, LEAST_CALLS = 30, 3


def milliseconds(work: Callable[[], object], repeat: float) -> float:
    """Return the median of the GPU's own time for a call, from calls of about `repeat` milliseconds."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    whole = time.perf_counter() - start
    calls = max(LEAST_CALLS, min(MOST_CALLS, int(1e-3 * repeat / whole)))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for before, after in events:
        FLUSHED.sum()
        torch.cuda._sleep(int(CYCLES * (2 * host + 100e-6)))
        before.record()
        work()
        after.record()
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in events)


def ceilings(repeat: float) -> dict[str, float]:
    """Measure what this card can do at most: bytes read plus written by a copy, and a large bf16 product."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / milliseconds(lambda: target.copy_(source), repeat)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return {"copy_tb_s": copy / 1e9, "bf16_tflop_s": 2 * 8192**3 / milliseconds(lambda: a @ b, repeat) / 1e9}


def host_microseconds(work: Callable[[], object], calls: int = 30) -> float:
    """Return what a call takes of the host; the GPU's queue holds some hundred launches, so nothing waits for it."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    seconds = time.perf_counter() - start
    torch.cuda.synchronize()
    return 1e6 * seconds / calls


def measure(case: Case, copy_tb_s: float, repeat: float, configs: bool) -> dict[str, object]:
    ms = milliseconds(case.op, repeat)
    others: dict[str, float | str] = {}
    for name, work in case.others.items():
        if name.startswith("config") and not configs:
            continue
        try:
            others[name] = milliseconds(work, repeat)
        except Exception as error:  # a configuration may not fit: the others are measured all the same
            others[name] = f"{type(error).__name__}: {str(error)[:200]}"
            torch.cuda.synchronize()
    share = case.bytes / ms / 1e9 / copy_tb_s
    reference = others.get(case.against) if case.against else None
    ratio = share if case.against == "copy" else ms / reference if isinstance(reference, float) else None
    met = None
    if case.target is not None and ratio is not None:
        met = ratio >= case.target if case.against == "copy" else ratio <= case.target
    return {
        "ms": ms,
        "host_us": host_microseconds(case.op),
        "share_of_copy": share,
        "tflop_s": case.flops / ms / 1e9,
        "others_ms": others,
        "against": case.against,
        "ratio": ratio,
        "target": case.target,
        "met": met,
    }


def line(name: str, found: dict[str, object]) -> str:
    if "error" in found:
        return f"{name:<58} {found['error']}"
    ratio = "" if found["ratio"] is None else f"{found['ratio']:7.2f} of {found['against']} (target {found['target']})"
    verdict = {None: "", True: " met", False: " MISSED"}[found["met"]]  # type: ignore[index]
    return (
        f"{name:<58}{found['ms']:9.4f} ms{found['host_us']:7.0f} us host{found['share_of_copy']:6.2f} of copy"
        f"{found['tflop_s']:7.0f} TF {ratio}{verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="only those whose family or name contains this")
    parser.add_argument("--milliseconds", type=float, default=60, help="time for each figure (default: 60)")
    parser.add_argument("--others", action="store_true", help="print what the ops stand beside, too")
    parser.add_argument("--configs", action="store_true", help="measure other configurations of the kernels, too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    ceiling = ceilings(options.milliseconds)
    print(f"copy {ceiling['copy_tb_s']:.2f} TB/s, bf16 product {ceiling['bf16_tflop_s']:.0f} TFLOP/s")
    results: dict[str, dict[str, object]] = {}
    for family in FAMILIES:
        for name, make in import_module(f"gpu_cases.{family}").CASES.items():
            if options.cases not in f"{family} {name}":
                continue
            try:
                results[f"{family}: {name}"] = measure(
                    make(), ceiling["copy_tb_s"], options.milliseconds, options.configs
                )
            except Exception as error:
                traceback.print_exc()
                results[f"{family}: {name}"] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            torch.cuda.empty_cache()
            if options.json:  # after each: the whole may be stopped
                options.json.write_text(json.dumps({"method": METHOD, "ceilings": ceiling, "cases": results}, indent=1))
            print(line(f"{family}: {name}", results[f"{family}: {name}"]), flush=True)
            if options.others:
                for other, ms in results[f"{family}: {name}"].get("others_ms", {}).items():  # type: ignore[attr-defined]
                    print(f"    {other:<60} {ms if isinstance(ms, str) else f'{ms:.4f} ms'}", flush=True)


if __name__ == "__main__":
    main()
