"""Runs the parts of benchmarks/gpu.sh, each as a process of its own, and joins what they found in one JSON.

parity      the op tests of Triton and CUDA C++, and tests/gpu, on the GPU
ops         benchmarks/gpu_ops.py
steps       benchmarks/gpu_steps.py
sanitizer   a few examples of each parity test under compute-sanitizer's memcheck
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
import triton

from imbdyn.bench.report import report

ROOT = Path(__file__).parents[1]

#: Seconds after which a part is stopped; what it has written until then counts. 410 together.
LIMITS = {"parity": 115, "ops": 60, "steps": 190, "sanitizer": 45}


#: Seconds that a stopped part has to say what it knows: pytest then prints the tests that failed until there, and why.
_LAST_WORDS = 10

#: pytest without plugins that do not go together with our settings.
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:benchmark")


def run(part: str, command: Sequence[str], log: Path, **environment: str) -> tuple[int, float]:
    """Run a part; return its exit status, 124 if it was stopped, and its seconds. Its output goes to the log."""
    started = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        try:
            status = process.wait(LIMITS[part])
        except subprocess.TimeoutExpired:
            status = 124
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS)
        finally:
            process.kill()
            process.wait()
    return status, time.perf_counter() - started


def op_tests() -> list[str]:
    found = sorted(ROOT.glob("tests/ops/test_*_triton.py")) + sorted(ROOT.glob("tests/ops/test_*_cuda.py"))
    return [str(path.relative_to(ROOT)) for path in found]


def counted(log: str) -> dict[str, object]:
    """Return passed, failed and skipped tests by `op/implementation` (or the test file), and who failed.

    Of the line that pytest -v prints when a test ends, which is there also if the whole was stopped.
    """
    counts: dict[str, dict[str, int]] = {}
    failed = []
    for outcome, file, name in re.findall(r"^\[gw\d+\].*?(PASSED|FAILED|ERROR|SKIPPED) (\S+?)::(.*)$", log, re.M):
        op_test = re.fullmatch(r"test_(\w+)_(triton|cuda)", Path(file).stem)
        key = f"{op_test[1]}/{op_test[2]}" if op_test else Path(file).stem
        of_file = counts.setdefault(key, {"passed": 0, "failed": 0, "skipped": 0})
        of_file["failed" if outcome == "ERROR" else outcome.lower()] += 1
        if outcome in ("FAILED", "ERROR"):
            failed.append(f"{key}: {name.strip()}")
    return {**counts, "who_failed": sorted(failed)}


def parity(folder: Path) -> object:
    tests = [*op_tests(), *(["tests/gpu"] if (ROOT / "tests" / "gpu").is_dir() else [])]
    status, seconds = run("parity", [sys.executable, *PYTEST, "-v", "-n", "12", *tests], folder / "parity.log")
    log = (folder / "parity.log").read_text()
    print(log[-6000:])
    return {"exit": status, "seconds": seconds, **counted(log)}


def ops(folder: Path) -> object:
    found = folder / "ops.json"
    command = [sys.executable, "benchmarks/gpu_ops.py", "--milliseconds", "8", "--others", "--json", str(found)]
    status, seconds = run("ops", command, folder / "ops.log")
    print((folder / "ops.log").read_text()[-9000:])
    return {"exit": status, "seconds": seconds, **(json.loads(found.read_text()) if found.exists() else {})}


def steps(folder: Path) -> object:
    found = folder / "steps.json"
    status, seconds = run(
        "steps", [sys.executable, "benchmarks/gpu_steps.py", "--json", str(found)], folder / "steps.log"
    )
    print((folder / "steps.log").read_text()[-4000:])
    return {"exit": status, "seconds": seconds, **(json.loads(found.read_text()) if found.exists() else {})}


def sanitizer(folder: Path) -> object:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"exit": None, "why_not": "compute-sanitizer is not installed"}
    command = [tool, "--tool=memcheck", "--error-exitcode=9", "--target-processes=all", sys.executable]
    command += [*PYTEST, "-q", "-x", "-k", "not compile and not configuration", *op_tests()]
    status, seconds = run("sanitizer", command, folder / "sanitizer.log", IMBDYN_EXAMPLES="2")
    text = (folder / "sanitizer.log").read_text()
    print(text[-2500:])
    return {"exit": status, "seconds": seconds, "summary": re.findall(r"ERROR SUMMARY: .*", text)[-1:]}


PARTS = {"parity": parity, "ops": ops, "steps": steps, "sanitizer": sanitizer}


def commit() -> str | None:
    """Return the commit that is measured; None outside of a repository."""
    describe = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or os.environ.get("IMBDYN_COMMIT")


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    options = parser.parse_args()
    folder = options.folder.resolve()
    gpu = torch.cuda.get_device_name()
    results: dict[str, object] = {
        "gpu": gpu,
        "driver": driver(),
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "commit": commit(),
    }
    name = re.sub(r"\W+", "_", gpu.removeprefix("NVIDIA ")).lower()
    target = folder / f"gpu_{name}.json"
    for part in options.parts or PARTS:
        print(f"===== {part}", flush=True)
        results[part] = PARTS[part](folder)
        target.write_text(json.dumps(report(**results), indent=1) + "\n")
    print(f"written: {target}")


if __name__ == "__main__":
    main()
