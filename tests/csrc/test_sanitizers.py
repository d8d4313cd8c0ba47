"""The kernels under the sanitizers of the compiler: nothing is read or written that is not theirs (ASan), no undefined
arithmetic or alignment is relied on (UBSan), and no memory is shared by threads without an order (TSan).

The extension itself runs the tests of the ops and of the journal's encoder. TSan does not understand how OpenMP's
threads wait for each other, and Python would have to be built with it: it sees a program of C++ alone, on the pool.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drivers import CXX, ROOT, build

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(CXX is None, reason="no C++ compiler")]

#: A finding ends the process with this status. Python does not free everything at its end, so leaks are not looked
#: for. Fresh memory is filled with ones, which are NaN in every floating type: a number that nobody wrote is seen.
FINDING = 99
OPTIONS = {
    "ASAN_OPTIONS": f"exitcode={FINDING}:detect_leaks=0:max_malloc_fill_size=1073741824:malloc_fill_byte=255",
    "UBSAN_OPTIONS": f"exitcode={FINDING}:print_stacktrace=1",
    "TSAN_OPTIONS": f"exitcode={FINDING}:halt_on_error=1",
}

#: What the extension runs. Left out is inductor, which would start a compiler under the sanitizer to call the kernels.
LEFT_OUT = "not inductor"
#: GPU kernels under Triton's interpreter are Python: nothing of the extension runs there.
OF_GPU = re.compile("triton|cuda|compiled|verified")
TESTED = [
    *(path for path in sorted((ROOT / "tests" / "ops").glob("test_*.py")) if not OF_GPU.search(path.stem)),
    ROOT / "tests" / "trace" / "test_trace_commit_rows.py",
]


def run(command: list[str | Path], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **OPTIONS, **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)


def needs(sanitizers: str, folder: Path) -> None:
    """Skip if the compiler cannot build a program with `sanitizers`."""
    source = folder / "empty.cpp"
    source.write_text("int main() {}\n")
    command = [str(CXX), f"-fsanitize={sanitizers}", source, "-o", folder / "empty"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{CXX} has no -fsanitize={sanitizers} (Debian: libgcc-*-dev)")


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The sanitizers and tests/csrc/kernels_at_once.cpp, built with them."""
    folder = tmp_path_factory.mktemp("driver")
    needs(request.param, folder)
    return request.param, build(CXX, folder, "kernels_at_once.cpp", sanitize=request.param)


MISTAKES = {
    "short-result": ("address,undefined", "heap-buffer-overflow"),
    "misaligned-features": ("address,undefined", "misaligned address"),
    "shared-result": ("thread", "data race"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_kernel_is_reported(driver: tuple[str, Path], mistake: str) -> None:
    sanitizers, report = MISTAKES[mistake]
    done = run([driver[1], mistake])
    if driver[0] == sanitizers:
        assert done.returncode == FINDING, done.stderr
        assert report in done.stderr
        assert "class_moments" in done.stderr
    else:
        assert report not in done.stderr


def test_several_callers_at_once_on_every_instruction_set(driver: tuple[str, Path]) -> None:
    isas = run([driver[1]], IMBDYN_FORCE_ISA="none")
    available = re.search("known instruction sets: (.*)", isas.stderr)
    assert available is not None
    ran = []
    for isa in available[1].split(", "):
        done = run([driver[1]], IMBDYN_FORCE_ISA=isa)
        if "this machine has" not in done.stderr:
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{isa}: 3 callers made the same")
            ran.append(isa)
    assert ran


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this package, its extension built with ASan and UBSan, and its tests."""
    folder = tmp_path_factory.mktemp("sanitized")
    needs("address,undefined", folder)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("csrc", "imbdyn", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_C.*.so", "__pycache__"))
    environment = {**os.environ, "IMBDYN_SANITIZE": "address,undefined", "IMBDYN_CUDA": "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder


def run_python(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder of `package`, with the sanitizer's runtime loaded first, as it wants to be."""
    (extension,) = (package / "imbdyn").glob("_C*.so")
    libraries = subprocess.run(["ldd", extension], capture_output=True, text=True, check=True).stdout
    # libstdc++ too: ASan looks for what throws exceptions before the extension brings it along.
    preload = [path for path in re.findall(r"=> (/\S+)", libraries) if re.search(r"/lib(asan|stdc\+\+)\.", path)]
    if len(preload) != 2:
        pytest.skip(f"{CXX} does not link to a shared runtime of ASan, which Python could load: {libraries}")
    environment = {**os.environ, **OPTIONS, "LD_PRELOAD": " ".join(preload), "PYTHONPATH": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


MISTAKES_IN_PYTHON = {"short": "heap-buffer-overflow", "misaligned": "misaligned address"}


@pytest.mark.parametrize("mistake", MISTAKES_IN_PYTHON)
def test_mistake_in_the_extension_is_reported(package: Path, mistake: str) -> None:
    code = f"""
import torch
from imbdyn.ops._extension import kernels
print(kernels.__file__, flush=True)
features, labels, count = torch.zeros(20, 9), torch.zeros(20, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
mean, m2 = torch.zeros({8 if mistake == "short" else 9}), torch.zeros(9)
at = features.data_ptr() + {2 if mistake == "misaligned" else 0}
kernels.class_moments(
    at, 1, 19, 9, 9, 1, labels.data_ptr(), 1, 1, -100, count.data_ptr(), mean.data_ptr(), m2.data_ptr(), 1
)
print("nobody noticed")
"""
    done = run_python(package, "-c", code)
    assert done.stdout.startswith(str(package)), done.stderr
    assert done.returncode == FINDING, done.stderr
    assert MISTAKES_IN_PYTHON[mistake] in done.stderr
    assert "nobody noticed" not in done.stdout


@pytest.mark.parametrize("file", TESTED, ids=lambda file: file.stem)
def test_tests_of_the_extension_pass_under_the_sanitizers(package: Path, file: Path) -> None:
    markers = "nightly or not nightly" if file.stem == "test_hostile_inputs" else "not nightly"
    pytest_ = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--capture=sys", "-k", LEFT_OUT, "-m", markers)
    done = run_python(package, *pytest_, str(package / file.relative_to(ROOT)))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert re.search(r"\d+ passed", done.stdout)
