"""The streams of a GPU on which one thing after the other is computed."""

from __future__ import annotations

import torch
from torch import Tensor


class Streams:
    """Orders our work on several streams of a device: streams wait for each other, the host for none of them.

    A model may run on a side stream, and autograd runs a backward pass on the streams of the forward pass, while the
    optimizer steps on another one. On the CPU, and as long as there is one stream, this costs next to nothing.
    Memory needs no care: what a side stream frees it reuses for later work of its own, and no training goes on there
    before the optimizer step, on which it depends.
    """

    def __init__(self) -> None:
        self._number = -1
        self._last: torch.cuda.Stream | None = None

    def follow(self, t: Tensor) -> None:
        """Let the current stream wait for all that came before the last call; to be called before work with `t`."""
        if not t.is_cuda:
            return
        number = torch._C._cuda_getCurrentRawStream(t.get_device())
        if number == self._number and self._last is not None and self._last.device == t.device:
            return
        current = torch.cuda.current_stream(t.device)
        if self._last is not None:
            current.wait_stream(self._last)
        self._number, self._last = number, current
