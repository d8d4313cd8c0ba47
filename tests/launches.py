"""Writes down how Triton's interpreter launches kernels, as a GPU would compile them: IMBDYN_LAUNCHES=FILE.

Triton compiles a kernel again for each dtype, for arguments that are 1 or None (which are then constants), and for
those that are multiples of 16. tests/ops/test_launches_compile.py compiles what is written here.
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

POINTERS = {
    **{torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"},
    **{torch.int64: "*i64", torch.int32: "*i32", torch.int16: "*i16"},
}


def specialised(
    name: str,
    arguments: dict[str, Any],
    constants: Sequence[str],
    not_specialised: Sequence[str],
    options: dict[str, int],
) -> dict[str, Any]:
    """Return the fields of a `compiled_kernels.Kernel`; `constants` are the names of tl.constexpr arguments."""
    signature: dict[str, str] = {}
    values: dict[str, Any] = {}
    aligned = []
    for argument, value in arguments.items():
        specialises = argument not in not_specialised
        if argument in constants or value is None or (specialises and type(value) is int and value == 1):
            values[argument] = getattr(value, "value", value)
        elif isinstance(value, torch.Tensor):
            signature[argument] = POINTERS[value.dtype]
            aligned += [argument] * (value.data_ptr() % 16 == 0)
        elif isinstance(value, float):
            signature[argument] = "fp32"
        else:
            signature[argument] = "i32" if -(2**31) <= value < 2**31 else "i64"
            aligned += [argument] * (specialises and value % 16 == 0)
    return {"name": name, "signature": signature, "constants": values, "options": options, "aligned": aligned}


def record(file: str) -> None:
    """Write the kernels that this process launches, each once, to a JSON file when it ends."""
    from triton.runtime.interpreter import InterpretedFunction

    launches: dict[str, None] = {}
    run = InterpretedFunction.run

    def run_and_note(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        given = dict(zip(self.arg_names, args, strict=False)) | kwargs
        arguments = {name: given.pop(name) for name in self.arg_names}
        constants = [name for name, kind in self.fn.__annotations__.items() if "constexpr" in str(kind)]
        name = f"{self.fn.__module__}:{self.fn.__name__}"
        launch = specialised(name, arguments, constants, self.kwargs.get("do_not_specialize") or (), given)
        launches[json.dumps(launch)] = None
        return run(self, *args, grid=grid, warmup=warmup, **kwargs)

    InterpretedFunction.run = run_and_note
    atexit.register(lambda: Path(file).write_text(json.dumps([json.loads(launch) for launch in launches])))
