"""Memory around results that nobody may write to."""

from __future__ import annotations

import torch
from torch import Tensor

#: On each side of a tensor; more than the rows next to a result of the tests take.
ZONE_BYTES = 1 << 16
#: As floating numbers these bytes are NaN: a kernel that reads a guard zone gives itself away too.
_GUARD = 0xFF


class GuardZones:
    """Tensors between guard zones, until they are checked."""

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def surround(self, tensor: Tensor) -> Tensor:
        """Return a contiguous copy of `tensor` between two zones."""
        buffer = torch.full((2 * ZONE_BYTES + tensor.nbytes,), _GUARD, dtype=torch.uint8)
        self._buffers.append(buffer)
        inside = buffer[ZONE_BYTES : ZONE_BYTES + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        return inside.copy_(tensor)

    def forget(self) -> list[Tensor]:
        """Look after none of the tensors so far any more; return their buffers."""
        buffers, self._buffers = self._buffers, []
        return buffers

    def check(self) -> int:
        """Forget the tensors, and return how many there were; AssertionError if one's zones were written to."""
        buffers = self.forget()
        for buffer in buffers:
            for side, zone in (("before", buffer[:ZONE_BYTES]), ("after", buffer[-ZONE_BYTES:])):
                written = (zone != _GUARD).nonzero()[:, 0].tolist()
                assert not written, f"{len(written)} bytes {side} a result were written, the first at {written[0]}"
        return len(buffers)
