"""parameter_norms in CUDA C++: one launch over the chunks of all tensors (csrc/cuda/parameter_norms.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._triton import launching_on
from imbdyn.ops.parameter_norms.table import COLUMNS, table_of


def parameter_norms_cuda(
    params: Sequence[Tensor], grads: Sequence[Tensor | None], previous: Sequence[Tensor | None], rows: int
) -> tuple[Tensor, Tensor]:
    """Return what `imbdyn.ops.parameter_norms` returns, for tensors on one CUDA device; rows is -1 for none.

    RuntimeError if this build has no CUDA kernels.
    """
    _C = _extension.kernels
    if _C is None or not _C.has_cuda:
        raise RuntimeError("imbdyn was built without its CUDA kernels; see `imbdyn info`")
    device = params[0].device if params else None
    num_rows = params[rows].shape[0] if rows >= 0 else 0
    out = torch.empty(len(params), 4, dtype=torch.float64, device=device)
    rows_out = torch.empty(num_rows, 4, dtype=torch.float64, device=device)
    if not params:
        return out, rows_out
    with launching_on(params[0]):
        table, alive = table_of(params, grads, previous, rows)
        partial = torch.empty(table.work.chunks, COLUMNS, dtype=torch.float64, device=device)
        _C.parameter_norms_cuda(
            table.on_device.data_ptr(),
            table.work.chunks,
            len(params),
            num_rows,
            partial.data_ptr(),
            out.data_ptr(),
            rows_out.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
        del alive
    return out, rows_out
