"""Which of the processes of a run this one is."""

from __future__ import annotations

import os

import torch.distributed as dist

#: What a launcher (torchrun, or Slurm and MPI scripts that use env://) gives to all ranks alike, and to no other run.
_SHARED = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


def rank() -> int:
    """Return this process's rank: of torch.distributed, or as the launcher has set RANK; 0 if there is one process."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))


def run_id() -> str | None:
    """Return what tells this run from others in all of its ranks: IMBDYN_RUN_ID, or what the launcher has set.

    None if there is neither; then only one process can write the trace. Nothing is sent to the other ranks, which may
    have no Monitor and would not answer.
    """
    own = os.environ.get("IMBDYN_RUN_ID")
    if own is not None or "MASTER_PORT" not in os.environ:
        return own
    return "/".join(os.environ.get(name, "") for name in _SHARED)
