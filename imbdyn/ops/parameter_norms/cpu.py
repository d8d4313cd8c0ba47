"""parameter_norms in C++: one call for all tensors, each read once as it lies (csrc/cpu/parameter_norms.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._library import implement, unavailable
from imbdyn.ops.parameter_norms.layout import lay_out_alike

#: How many numbers the kernel's table has for a parameter: address and type of w, grad and previous, and their element
#: count.
_TABLE_COLUMNS = 7


def register() -> None:
    """Let the compiled kernel serve CPU tensors, or record why it cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("parameter_norms", "cpu", "cpu", "C++", _extension.why_missing)
        return

    def parameter_norms_cpu(
        params: Sequence[Tensor], grads: Sequence[Tensor | None], previous: Sequence[Tensor | None], rows: int
    ) -> tuple[Tensor, Tensor]:
        lists, types = lay_out_alike((params, grads, previous), rows)
        table = [0] * (_TABLE_COLUMNS * len(params))
        for i, tensors in enumerate(lists):
            table[2 * i :: _TABLE_COLUMNS] = [0 if t is None else t.data_ptr() for t in tensors]
            table[2 * i + 1 :: _TABLE_COLUMNS] = types[i]
        table[_TABLE_COLUMNS - 1 :: _TABLE_COLUMNS] = [w.numel() for w in params]

        out = torch.empty(len(params), 4, dtype=torch.float64)
        rows_out = torch.empty(params[rows].shape[0] if rows >= 0 else 0, 4, dtype=torch.float64)
        _C.parameter_norms(table, rows, rows_out.shape[0], out.data_ptr(), rows_out.data_ptr(), torch.get_num_threads())
        return out, rows_out

    implement("parameter_norms", "cpu", "cpu", f"C++, {_C.active_isa()}", parameter_norms_cpu)
