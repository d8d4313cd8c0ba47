"""Builds `imbdyn._C`: one C++ file per instruction set with flags of its own, and the CUDA files where nvcc is found.

Torch is not needed to build. Read from the environment: CXX, CXXFLAGS, LDFLAGS as always; DEBUG=1 builds with -O0 -g;
IMBDYN_CUDA=0 leaves out the CUDA kernels; CUDA_HOME says where nvcc is if it is not on PATH; IMBDYN_SANITIZE=
address,undefined or thread builds with those sanitizers of GCC or Clang, -O1 -g (tests/csrc/test_sanitizers.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError
from setuptools.modified import newer_group

DEBUG = os.environ.get("DEBUG") == "1"
SANITIZE = os.environ.get("IMBDYN_SANITIZE", "")

# Python's own flags may have -fwrapv, with which no signed overflow would be found.
SANITIZER_FLAGS = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=undefined", "-fno-wrapv", "-fno-omit-frame-pointer"]
OPTIMISATION = ["-O0", "-g"] if DEBUG else ["-O1", "-g"] if SANITIZE else ["-O3"]

# No -ffast-math: NaN and infinity must come out as in the references. The two -fno- flags only drop errno and
# floating-point traps, which nothing here reads and which keep loops from being vectorised.
GNU_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", *OPTIMISATION]
GNU_LINK_FLAGS = ["-pthread"]
if SANITIZE:
    GNU_FLAGS += SANITIZER_FLAGS
    GNU_LINK_FLAGS += SANITIZER_FLAGS
MSVC_FLAGS = ["/Od", "/Zi"] if DEBUG else ["/O2"]

#: The files that are compiled for one x86-64 instruction set; all others get the compiler's baseline.
X86_FLAGS = {
    "csrc/cpu/isa_avx2.cpp": ["-mavx2", "-mfma"],
    "csrc/cpu/isa_avx512.cpp": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"],
}

#: GPU architectures that get machine code; the newest is kept as PTX too, which later GPUs compile on loading.
CUDA_ARCHITECTURES = (80, 90, 100)


def files(pattern: str) -> list[str]:
    return sorted(path.as_posix() for path in Path("csrc").glob(pattern))


def find_nvcc() -> str | None:
    """Return the path of nvcc; None if there is none or IMBDYN_CUDA=0."""
    if os.environ.get("IMBDYN_CUDA", "1") == "0":
        return None
    home = os.environ.get("CUDA_HOME")
    return (shutil.which("nvcc", path=str(Path(home, "bin"))) if home else None) or shutil.which("nvcc")


def run_nvcc(nvcc: str, *arguments: str) -> None:
    try:
        subprocess.run([nvcc, *arguments], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompileError(
            f"{nvcc} failed (its message is above); IMBDYN_CUDA=0 builds without CUDA kernels"
        ) from error


class BuildExt(build_ext):
    """Compiles the files in parallel, each with its own flags, when one of them or the configuration changed."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        nvcc, gnu = find_nvcc(), self.compiler.compiler_type != "msvc"
        if gnu and self._targets_x86_64():
            ext.sources += list(X86_FLAGS)
            ext.define_macros.append(("IMBDYN_X86_KERNELS", None))
        if nvcc is not None:
            ext.define_macros.append(("IMBDYN_HAS_CUDA", None))
        cuda_sources = files("cuda/*.cu") if nvcc is not None else []

        target = self.get_ext_fullpath(ext.name)
        stamp = Path(self.build_temp, "configuration.txt")
        configuration = f"{DEBUG=} {SANITIZE=} {nvcc=} {ext.sources}"
        fresh = stamp.is_file() and stamp.read_text() == configuration
        if fresh and not self.force and not newer_group(ext.depends, target):
            return

        def compile_cpp(source: str) -> str:
            flags = [*ext.extra_compile_args, *(GNU_FLAGS if gnu else MSVC_FLAGS), *X86_FLAGS.get(source, [])]
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=ext.define_macros,
                include_dirs=ext.include_dirs,
                extra_postargs=flags,
            )[0]

        def compile_cuda(source: str) -> str:
            output = Path(self.build_temp, source + ".o")
            output.parent.mkdir(parents=True, exist_ok=True)
            newest = CUDA_ARCHITECTURES[-1]
            codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in CUDA_ARCHITECTURES]
            codes.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
            flags = ["-std=c++17", "-O0" if DEBUG else "-O3", "-Icsrc", "-Xcompiler=-fPIC,-fvisibility=hidden"]
            run_nvcc(nvcc, "-c", source, "-o", str(output), *flags, "--threads=2", *codes)
            return str(output)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            from_cuda = pool.map(compile_cuda, cuda_sources)
            objects = [*pool.map(compile_cpp, ext.sources), *from_cuda]
        if nvcc is not None:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            run_nvcc(nvcc, "-shared", "-cudart=static", "-Xcompiler=-pthread", *objects, "-o", target)
        else:
            self.compiler.link_shared_object(
                objects,
                target,
                libraries=self.get_libraries(ext),
                extra_postargs=GNU_LINK_FLAGS if gnu else [],
                build_temp=self.build_temp,
                target_lang="c++",
            )
        stamp.write_text(configuration)

    def _targets_x86_64(self) -> bool:
        """Return whether the compiler makes x86-64 code. Raises PlatformError if there is no compiler."""
        command = getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so)
        if shutil.which(command[0]) is None:
            raise PlatformError(
                f"imbdyn needs a C++17 compiler and {command[0]!r} is not on PATH: "
                "install one (Debian and Ubuntu: apt install g++) or name one with CXX"
            )
        # Asked of the compiler, not of this machine: it may compile for another.
        probe = subprocess.run([*command, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True)
        return "__x86_64__" in probe.stdout


setup(
    ext_modules=[
        Pybind11Extension(
            "imbdyn._C",
            sources=[source for source in files("**/*.cpp") if source not in X86_FLAGS],
            depends=["setup.py", *files("**/*.*")],  # what rebuilds it, and what a source distribution holds
            include_dirs=["csrc"],
            cxx_std=17,
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
