"""What shapes say about the cheapest way and the configuration of each kernel of class_gram.

Times are microseconds of an H100; on another GPU the ratios count.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import torch

#: Bytes of scratch memory that the gradients of chunks may take at once.
SLOT_BYTES = 256 << 20
#: Bytes up to which every sample's gradient is added to its class's by itself, and squared as a whole.
_SAMPLE_BYTES = 320 << 20
#: Bytes of class gradients up to which chunks are added to them rather than kept: these have to be cleared.
_CLASS_BYTES = 24 << 20
#: Tiles that keep all multiprocessors busy to the end: two for each.
_TILES = 264
#: Multiply-adds a microsecond, of bfloat16: of gradients; of pairs, whose tiles are small.
_GRADIENTS_RATE, _PAIRS_RATE = 165e6, 100e6
#: Bytes a microsecond to and from scratch memory.
_BYTES_RATE = 2.5e6


class Norms(Enum):
    """Where sample norms come from on the direct way."""

    NONE = 0
    BY_ROW = 1
    """Rows are samples: products of the norms of two rows, one more read of both matrices."""
    BY_SLOT = 2
    """Every sample has a chunk of its own, whose tiles are squared."""
    IN_LOOP = 3
    """Each sample's tile is made by itself and squared."""
    WITHIN = 4
    """From the pairs of rows within each sample."""


class PairsConfig(NamedTuple):
    """Of the kernels over pairs of rows."""

    block: int
    columns: int
    warps: int
    stages: int


class GradientConfig(NamedTuple):
    """Of the kernel of chunks' gradients."""

    block_o: int
    block_i: int
    block_r: int
    warps: int
    stages: int


class SlotsConfig(NamedTuple):
    """Of the kernel of inner products: slots, numbers at once of each lane, lanes."""

    block_s: int
    block: int
    lanes: int
    stages: int


def _slowdown(dtype: torch.dtype, precision: str) -> float:
    if dtype != torch.float32:
        return 1.0
    return 3.0 if precision == "tf32" else 9.0


def gram_is_cheaper(
    samples: int, length: int, columns: int, outputs: int, classes: int, dtype: torch.dtype, precision: str
) -> bool:
    """Return whether pairs of rows take less time than gradients of chunks."""
    rows, slow = samples * length, _slowdown(dtype, precision)
    gram = 4 + rows * rows * (columns + outputs + 64) / 2 / _PAIRS_RATE * slow + (columns + outputs) / 500
    slots = min(samples, 8) + min(samples, classes)
    direct = 12 + rows * columns * outputs / _GRADIENTS_RATE * slow + slots * columns * outputs * 8 / _BYTES_RATE
    return gram <= direct


def norms_of(samples: int, length: int, columns: int, outputs: int, units: bool, convolution: bool) -> Norms:
    """Return the cheapest source of sample norms on the direct way."""
    if units:
        return Norms.WITHIN
    if length == 1:
        return Norms.BY_ROW
    if samples * columns * outputs * 4 <= _SAMPLE_BYTES:
        return Norms.BY_SLOT
    if convolution:
        return Norms.IN_LOOP
    # pairs within samples; or beside the gradients' multiply-adds rows padded by sample, squares and sums of tiles
    within = (length + 128) * (columns + outputs) / _PAIRS_RATE
    in_loop = columns * outputs / _GRADIENTS_RATE * ((-length % 32) + 64) / length
    return Norms.WITHIN if within < in_loop else Norms.IN_LOOP


def adds_to_classes(ranks: int, columns: int, outputs: int) -> bool:
    """Return whether chunks are added to the gradients of their classes, rather than kept in slots of their own."""
    return ranks * columns * outputs * 4 <= _CLASS_BYTES


def chunk_size(samples: int, columns: int, outputs: int, block_o: int, block_i: int, parts: int | None = None) -> int:
    """Return how many samples a chunk has at most, by powers of 2 so that layers share their chunks."""
    tiles = -(-outputs // block_o) * -(-columns // block_i)
    if parts is None:
        parts = 2
        while parts * tiles < _TILES and parts < samples:
            parts *= 2
    return max(1, -(-samples // parts))


class Forced(NamedTuple):
    """What tests and benchmarks choose themselves; None leaves it to the shapes."""

    way: str | None = None
    """"gram" or "direct"."""
    norms: Norms | None = None
    gradient: GradientConfig | None = None
    pairs: PairsConfig | None = None
    within: PairsConfig | None = None
    slots: SlotsConfig | None = None
    parts: int | None = None


#: Nothing is forced.
FREE = Forced()


@lru_cache
def has_large_blocks(device: torch.device) -> bool:
    """Return whether a block may have more than 200 KiB of shared memory (Hopper and later)."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    properties = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin) > 200 << 10  # type: ignore[attr-defined]


def pairs_config(rows: int, dtype: torch.dtype, precision: str) -> PairsConfig:
    """Return the configuration of the gram way: larger tiles do not fit into registers, with their sums by class."""
    if dtype == torch.float32:
        return PairsConfig(16, 32, 4, 3) if precision == "tf32x3" else PairsConfig(32, 32, 8, 3)
    return PairsConfig(32, 128 if rows <= 512 else 64, 8, 4)


def within_config(dtype: torch.dtype) -> PairsConfig:
    """Return the configuration of pairs within samples."""
    return PairsConfig(32, 32, 4, 3) if dtype == torch.float32 else PairsConfig(64, 64, 4, 3)


def gradient_config(
    length: int, columns: int, outputs: int, dtype: torch.dtype, by: Norms, by_sample: bool, large: bool, channels: int
) -> GradientConfig:
    """Return the configuration of chunks' gradients; `channels` of a convolution's inputs, 0 for rows.

    A tile of inputs lies within one tap where that is possible: addresses of several take registers. Where rows come
    from a list, of `stages` every second one holds rows: their numbers are loaded before them.
    """
    in_loop = by is Norms.IN_LOOP  # two tiles of sums in registers
    if dtype == torch.float32:
        if channels % 64 and not large:  # several taps in a tile: Triton 3.6 has no registers for a larger one
            return GradientConfig(64, 32, 32, 8 if in_loop else 4, 3)
        return GradientConfig(64, 64, 32, 8 if in_loop and not large else 4, 3)
    block_o = 128 if outputs > 64 else 64 if outputs > 32 else 32
    if channels % 64:
        return GradientConfig(min(block_o, 64), 64, 32, 8, 3)
    block_i = 16 if columns <= 16 else 64 if columns <= 64 or channels % 128 else 128
    warps = 8 if block_o * block_i == 128 * 128 else 4
    if by_sample:
        # rows of a sample are padded to whole blocks
        block_r = 64 if large and (-length % 64 <= length // 16 or -length % 64 == -length % 32) else 32
        if in_loop:
            return GradientConfig(block_o if large else min(block_o, 64), min(block_i, 64), block_r, 4, 5)
        return GradientConfig(block_o, block_i, block_r, warps, 3)
    return GradientConfig(block_o, block_i, 64 if large else 32, warps, 5)


def slots_config(slots: int) -> SlotsConfig:
    """Return the configuration of chunks' inner products."""
    if slots <= 16:
        return SlotsConfig(16, 64, 4, 4)
    return SlotsConfig(32, 32, 4, 3)
