"""Which of the processes of a run this one is, and what that means for what is read."""

from __future__ import annotations

import os

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

#: What a launcher (torchrun, or Slurm and MPI scripts that use env://) gives to all ranks alike, and to no other run.
_SHARED = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")

#: The one warning of a run of several ranks.
NOT_COMPARED = (
    "torch.distributed runs with several ranks, whose gradients may be averaged: class gradients are those of this "
    "rank's own batches as its backward made them, and cannot be compared with p.grad: residual and grad_scale are null"
)

#: Classes of modules whose parameters are sharded over ranks; by name, since few import them.
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


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


def several() -> bool:
    """Whether torch.distributed runs with more than one process: then gradients may be means over all of them."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def own_module(model: nn.Module) -> nn.Module:
    """Return the module inside of DistributedDataParallel, or `model` itself.

    What is read is read in there: the experiments that learn a model differentiate its output, and the backward pass
    of DistributedDataParallel's own output would tell a static graph that the step's gradients are complete.

    Raises:
        ValueError: for what would make those experiments wait for other ranks, which do not make the same ones: FSDP,
            and SyncBatchNorm in several ranks. And for torch.compile(DistributedDataParallel(..., static_graph=True)),
            which shows no output of its module.
    """
    for name, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if kinds & _SHARDED or (isinstance(module, nn.SyncBatchNorm) and several()):
            what = "SyncBatchNorm in several ranks" if isinstance(module, nn.SyncBatchNorm) else "FSDP"
            raise ValueError(
                f"{what} cannot be watched (module {name!r}): its backward passes wait for all ranks, and the Monitor "
                "makes some of its own"
            )
    within = getattr(model, "_orig_mod", None)
    if isinstance(within, DistributedDataParallel) and within.static_graph:
        raise ValueError(
            "torch.compile(DistributedDataParallel(model, static_graph=True)) cannot be watched; "
            "DistributedDataParallel(torch.compile(model), static_graph=True) can"
        )
    return model.module if isinstance(model, DistributedDataParallel) else model
