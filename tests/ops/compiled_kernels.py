"""Compiles Triton kernels for GPUs that this machine does not have, and says what they need of one.

In a process of its own: where tests run without a GPU, kernels are defined for Triton's interpreter. Run as a program
it reads a JSON list of `Kernel`s from its input and writes a JSON list of `Compiled`s.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

#: What is compiled for: backend, architecture, threads of a warp; and the shared memory that a block may have there.
TARGETS = {
    "sm_80": (("cuda", 80, 32), 163 << 10),
    "sm_90": (("cuda", 90, 32), 227 << 10),
    "gfx942": (("hip", "gfx942", 64), 64 << 10),
}


@dataclass(frozen=True)
class Kernel:
    """One specialisation of a kernel."""

    name: str
    """MODULE:FUNCTION."""
    signature: dict[str, str]
    """Type of each argument that is no constant, as Triton writes it (`*fp32`, `i64`, ...)."""
    constants: dict[str, object]
    """`tl.constexpr` arguments, and those that are None or 1."""
    options: dict[str, int] = field(default_factory=dict)
    """num_warps, num_stages."""
    aligned: tuple[str, ...] = ()
    """Arguments that are multiples of 16, as addresses of tensors are, which makes wide loads possible."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports."""

    shared: int
    """Bytes of shared memory of a block."""
    spills: int
    """Bytes (NVIDIA) or registers (AMD) that do not fit into registers."""
    registers: int


def compile_kernels(kernels: Sequence[Kernel], target: str) -> list[Compiled]:
    """Compile kernels for one of `TARGETS`."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, __file__, target],
        input=json.dumps([asdict(kernel) for kernel in kernels]),
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [Compiled(**report) for report in json.loads(done.stdout)]


def _compile(kernel: Kernel, target: str) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, function = kernel.name.split(":")
    jit = getattr(import_module(module), function)
    jit = jit.fn if isinstance(jit, triton.runtime.Autotuner) else jit
    places = {name: i for i, name in enumerate(jit.arg_names)}
    signature = {n: "constexpr" if n in kernel.constants else kernel.signature[n] for n in jit.arg_names}
    divisible = {(places[name],): [["tt.divisibility", 16]] for name in kernel.aligned}
    source = ASTSource(fn=jit, signature=signature, constexprs=kernel.constants, attrs=divisible)
    made = triton.compile(source, target=GPUTarget(*TARGETS[target][0]), options=kernel.options)
    if "ptx" in made.asm:
        return Compiled(made.metadata.shared, *_of_cubin(made.asm["cubin"]))
    text = made.asm["amdgcn"]
    # scalar registers that do not suffice spill into lanes of vector registers, not into memory
    spilled = sum(int(n) for n in re.findall(r"\.vgpr_spill_count:\s+(\d+)", text))
    return Compiled(made.metadata.shared, spilled, max(map(int, re.findall(r"\.vgpr_count:\s+(\d+)", text))))


def _of_cubin(cubin: bytes) -> tuple[int, int]:
    """Return spilled bytes and registers of machine code, by the tool that Triton brings along."""
    import tempfile

    import triton.backends.nvidia as nvidia

    tool = Path(nvidia.__path__[0]) / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    # a stack is where spilled registers go; local arrays, which Triton does not have, would be the other reason
    (registers, stack), *_ = re.findall(r"REG:(\d+) STACK:(\d+)", usage.stdout)
    return int(stack), int(registers)


if __name__ == "__main__":
    asked = [Kernel(**fields) for fields in json.load(sys.stdin)]
    print(json.dumps([asdict(_compile(kernel, sys.argv[1])) for kernel in asked]))
