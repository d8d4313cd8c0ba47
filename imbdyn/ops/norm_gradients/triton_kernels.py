"""Triton kernels of norm_gradients: by channel one read of x and dy, then statistics are joined.

A part is some places of a channel of a unit. Of d = x - shift it has s = sum d, q = sum d^2, b = sum dy and
c = sum dy d in float32; with n places its mean is shift + s/n (kept as two float32, which have the digits of float64),
its m2 is q - s^2/n, its cross moment c - b s/n. Where parts share statistics, means and m2 join as in Chan, Golub and
LeVeque (1979), and a cross moment moves from its part's mean to the joint one as c + (mean of part - mean) b. The shift
is the mean of the part's first block, so that the differences do not cancel. Sums go over parts in their order: results
are the same bits every time.
"""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

#: What `finish` does with the sums of a part.
OWN = "own"
"""The part is all that its statistics are of: the results are written."""
GIVEN = "given"
"""Mean and variance are given, and the part is a unit's whole channel: the results are written."""
JOINED = "joined"
"""More parts share the statistics: mean, m2, cross moment and b are left to another kernel."""
GIVEN_PART = "given, part"
"""Mean and variance are given, but the part is not the whole channel: c and b are left, scaled."""


@triton.jit
def finish(weight, bias, kept, size, at, exists, variance, shift, s, q, b, c, n, eps, MODE: tl.constexpr):
    """Write what the sums of a part of some channels come to, at `at` of [parts, C] or of `kept` [5, size]."""
    off = s / n
    if MODE == "own" or MODE == "joined":
        c -= b * off
        # fmax would hide a NaN
        m2 = tl.maximum(q - s * off, 0.0, propagate_nan=tl.PropagateNan.ALL)
        variance = m2 / n
    if MODE == "own" or MODE == "given":
        tl.store(bias + at, b, mask=exists)
        tl.store(weight + at, c * tl.div_rn(1.0, tl.sqrt_rn(variance + eps)), mask=exists)
    else:
        tl.store(kept + at, b, mask=exists)
        if MODE == "given, part":
            tl.store(kept + size + at, c * tl.div_rn(1.0, tl.sqrt_rn(variance + eps)), mask=exists)
        else:
            tl.store(kept + size + at, c, mask=exists)
            tl.store(kept + 2 * size + at, m2, mask=exists)
            mean = shift.to(tl.float64) + off.to(tl.float64)
            high = mean.to(tl.float32)
            tl.store(kept + 3 * size + at, high, mask=exists)
            tl.store(kept + 4 * size + at, (mean - high.to(tl.float64)).to(tl.float32), mask=exists)


@triton.jit(do_not_specialize=["units"])
def places_along(
    x, dy, weight, bias, kept, mean, variance, units, channels, places, of_part, x_unit, x_channel, x_place,
    dy_unit, dy_channel, dy_place, eps, CHANNELS: tl.constexpr, PLACES: tl.constexpr, ALIGN: tl.constexpr,
    MODE: tl.constexpr, LONG: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Sums of the part `program_id(1)` of CHANNELS channels (counted over all units), PLACES neighbours at a time.

    Unit and channel strides, `places` and `of_part` (places of a part) count ALIGN elements. LONG: a part has more than
    PLACES; STAGES - 1 blocks of them are on their way while one is read.
    """
    row = tl.program_id(0).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    exists = row < units.to(tl.int64) * channels
    unit = row // channels
    channel = row % channels
    start = tl.program_id(1).to(tl.int64) * of_part * ALIGN
    end = tl.minimum(start + of_part * ALIGN, places * ALIGN)
    n = (end - start).to(tl.float32)
    x_row = x + unit * x_unit * ALIGN + channel * x_channel * ALIGN + start * x_place
    dy_row = dy + unit * dy_unit * ALIGN + channel * dy_channel * ALIGN + start * dy_place
    place = tl.arange(0, PLACES)[None, :]
    within = exists[:, None] & (place < end - start)
    d = tl.load(x_row[:, None] + place.to(tl.int64) * x_place, mask=within, other=0.0).to(tl.float32)
    g = tl.load(dy_row[:, None] + place.to(tl.int64) * dy_place, mask=within, other=0.0).to(tl.float32)
    if MODE == "given" or MODE == "given, part":
        shift = tl.load(mean + channel, mask=exists, other=0.0).to(tl.float32)
        of_channel = tl.load(variance + channel, mask=exists, other=0.0).to(tl.float32)
    else:
        shift = tl.sum(d, 1) / tl.minimum(n, PLACES)
        of_channel = shift
    d = tl.where(within, d - shift[:, None], 0.0)
    s = d
    q = d * d
    b = g
    c = g * d
    for first in tl.range(PLACES, of_part * ALIGN if LONG else PLACES, PLACES, num_stages=STAGES):
        at = (first + place).to(tl.int64)
        within = exists[:, None] & (first + place < end - start)
        d = tl.load(x_row[:, None] + at * x_place, mask=within, other=0.0).to(tl.float32)
        g = tl.load(dy_row[:, None] + at * dy_place, mask=within, other=0.0).to(tl.float32)
        d = tl.where(within, d - shift[:, None], 0.0)
        s += d
        q += d * d
        b += g
        c += g * d
    at = (unit * tl.num_programs(1) + tl.program_id(1)) * channels + channel
    size = units.to(tl.int64) * tl.num_programs(1) * channels
    finish(
        weight, bias, kept, size, at, exists, of_channel, shift, tl.sum(s, 1), tl.sum(q, 1), tl.sum(b, 1),
        tl.sum(c, 1), n, eps, MODE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["units"])
def channels_along(
    x, dy, weight, bias, kept, mean, variance, units, channels, places, of_part, x_unit, x_channel, x_place, dy_unit,
    dy_channel, dy_place, eps, CHANNELS: tl.constexpr, PLACES: tl.constexpr, ALIGN: tl.constexpr, MODE: tl.constexpr,
    LONG: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Sums of the part `program_id(1)` of CHANNELS neighbouring channels of a unit, PLACES at a time.

    Unit and place strides and `channels` count ALIGN elements. LONG and STAGES are as above.
    """
    blocks = tl.cdiv(channels * ALIGN, CHANNELS)
    channel = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels * ALIGN
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(1) * of_part
    end = tl.minimum(start + of_part, places)
    n = (end - start).to(tl.float32)
    x_column = x + unit * x_unit * ALIGN + channel.to(tl.int64)[None, :] * x_channel
    dy_column = dy + unit * dy_unit * ALIGN + channel.to(tl.int64)[None, :] * dy_channel
    place = start + tl.arange(0, PLACES)[:, None]
    within = exists[None, :] & (place < end)
    d = tl.load(x_column + place.to(tl.int64) * x_place * ALIGN, mask=within, other=0.0).to(tl.float32)
    g = tl.load(dy_column + place.to(tl.int64) * dy_place * ALIGN, mask=within, other=0.0).to(tl.float32)
    if MODE == "given" or MODE == "given, part":
        shift = tl.load(mean + channel, mask=exists, other=0.0).to(tl.float32)
        of_channel = tl.load(variance + channel, mask=exists, other=0.0).to(tl.float32)
    else:
        shift = tl.sum(d, 0) / tl.minimum(n, PLACES)
        of_channel = shift
    d = tl.where(within, d - shift[None, :], 0.0)
    s = d
    q = d * d
    b = g
    c = g * d
    for first in tl.range(PLACES, of_part if LONG else PLACES, PLACES, num_stages=STAGES):
        at = (first + place).to(tl.int64)
        within = exists[None, :] & (first + place < end)
        d = tl.load(x_column + at * x_place * ALIGN, mask=within, other=0.0).to(tl.float32)
        g = tl.load(dy_column + at * dy_place * ALIGN, mask=within, other=0.0).to(tl.float32)
        d = tl.where(within, d - shift[None, :], 0.0)
        s += d
        q += d * d
        b += g
        c += g * d
    at = (unit * tl.num_programs(1) + tl.program_id(1)) * channels * ALIGN + channel
    size = units.to(tl.int64) * tl.num_programs(1) * channels * ALIGN
    finish(
        weight, bias, kept, size, at, exists, of_channel, shift, tl.sum(s, 0), tl.sum(q, 0), tl.sum(b, 0),
        tl.sum(c, 0), n, eps, MODE,
    )  # fmt: skip
