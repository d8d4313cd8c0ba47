"""Triton kernels of norm_gradients that join the statistics of parts, and move cross moments to the joint mean."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _reciprocal(n):
    """Return 1 / n in float64 by Newton's steps from float32: a float64 division is a call, with a stack."""
    close = (1 / n.to(tl.float32)).to(tl.float64)
    close = close * (2 - n * close)
    return close * (2 - n * close)


@triton.jit
def _scale_of(m2, weight, eps):
    """Return 1 / sqrt(variance + eps), float32, of float64 sums of squares and 1 / n."""
    # rounding may leave a sum of squares below 0, and fmax would hide a NaN
    variance = tl.maximum((m2 * weight).to(tl.float32), 0.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.div_rn(1.0, tl.sqrt_rn(variance + eps))


@triton.jit
def _places_of(part, parts, of_part, places):
    """Return how many places the parts numbered `part`, over all units, have."""
    return tl.minimum(of_part, places - (part % parts) * of_part).to(tl.float64)


@triton.jit
def _mean_of(kept, size, at, exists):
    """Return the means of parts, which are kept as two float32."""
    high = tl.load(kept + 3 * size + at, mask=exists, other=0.0)
    return high.to(tl.float64) + tl.load(kept + 4 * size + at, mask=exists, other=0.0).to(tl.float64)


@triton.jit
def _write_units(
    weight, bias, kept, size, unit, channel, exists, mean, scale, parts, channels, UNITS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Add the parts of units [UNITS, CHANNELS] in their order, with cross moments about `mean`, and write both sums."""
    cross = tl.zeros([UNITS, CHANNELS], tl.float64)
    total = tl.zeros([UNITS, CHANNELS], tl.float64)
    for part in range(parts):
        at = (unit * parts + part) * channels + channel
        b = tl.load(kept + at, mask=exists, other=0.0).to(tl.float64)
        off = _mean_of(kept, size, at, exists) - mean
        cross += tl.load(kept + size + at, mask=exists, other=0.0).to(tl.float64) + off * b
        total += b
    at = unit * channels + channel
    tl.store(weight + at, (cross * scale).to(tl.float32), mask=exists)
    tl.store(bias + at, total.to(tl.float32), mask=exists)


@triton.jit(do_not_specialize=["units", "channels", "parts", "of_part", "places", "of_program"])
def join_across_units(
    weight, bias, kept, units, channels, parts, of_part, places, of_program, eps,
    READ: tl.constexpr, WRITTEN: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Weight and bias [U, C] of `of_program` units and CHANNELS channels, whose statistics all units share.

    `kept` [5, U * parts, C] is what `finish` has left: b, cross moment, m2 and the two halves of the mean. Each program
    joins the statistics itself, READ parts at a time, in float64 and about the mean of the first part, and then writes
    WRITTEN units at a time.
    """
    channel = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    read = tl.arange(0, READ)[:, None]
    weight_of_place = _reciprocal(units.to(tl.float64) * places)
    size = units.to(tl.int64) * parts * channels
    shift = _mean_of(kept, size, channel, channel < channels)
    s = tl.zeros([READ, CHANNELS], tl.float64)
    q = tl.zeros([READ, CHANNELS], tl.float64)
    for first in range(0, units * parts, READ):
        part = first + read
        exists = (part < units * parts) & (channel < channels)
        at = part.to(tl.int64) * channels + channel
        off = tl.where(exists, _mean_of(kept, size, at, exists) - shift, 0.0)
        weighted = off * _places_of(part, parts, of_part, places)
        s += weighted
        q += off * weighted + tl.load(kept + 2 * size + at, mask=exists, other=0.0)
    off = tl.sum(s, 0) * weight_of_place
    scale = _scale_of(tl.sum(q, 0) - off * tl.sum(s, 0), weight_of_place, eps)[None, :]
    mean = shift + off[None, :]
    written = tl.arange(0, WRITTEN)[:, None]
    for first in range(0, of_program, WRITTEN):
        unit = (tl.program_id(1) * of_program + first + written).to(tl.int64)
        exists = (first + written < of_program) & (unit < units) & (channel < channels)
        _write_units(weight, bias, kept, size, unit, channel, exists, mean, scale, parts, channels, WRITTEN, CHANNELS)


@triton.jit(do_not_specialize=["units", "channels", "parts", "of_part", "places", "of_group"])
def join_groups(weight, bias, kept, units, channels, parts, of_part, places, of_group, eps, CHANNELS: tl.constexpr):
    """Weight and bias [U, C] of one group of `of_group` channels of one unit, which share statistics."""
    groups = channels // of_group
    unit = (tl.program_id(0) // groups).to(tl.int64)
    block = tl.arange(0, CHANNELS)[None, :]
    first_channel = tl.program_id(0) % groups * of_group
    weight_of_place = _reciprocal(of_group.to(tl.float64) * places)
    size = units.to(tl.int64) * parts * channels
    mean = tl.zeros([1, CHANNELS], tl.float64)
    for first in range(0, of_group, CHANNELS):
        exists = first + block < of_group
        for part in range(parts):
            at = (unit * parts + part) * channels + first_channel + first + block
            mean += _mean_of(kept, size, at, exists) * tl.minimum(of_part, places - part * of_part)
    mean = (tl.sum(mean, 1) * weight_of_place)[:, None]
    m2 = tl.zeros([1, CHANNELS], tl.float64)
    for first in range(0, of_group, CHANNELS):
        exists = first + block < of_group
        for part in range(parts):
            at = (unit * parts + part) * channels + first_channel + first + block
            off = tl.where(exists, _mean_of(kept, size, at, exists) - mean, 0.0)
            m2 += tl.load(kept + 2 * size + at, mask=exists, other=0.0)
            m2 += off * off * tl.minimum(of_part, places - part * of_part)
    scale = _scale_of(tl.sum(m2, 1), weight_of_place, eps)[:, None]
    for first in range(0, of_group, CHANNELS):
        exists = first + block < of_group
        channel = first_channel + first + block
        _write_units(weight, bias, kept, size, unit, channel, exists, mean, scale, parts, channels, 1, CHANNELS)


@triton.jit(do_not_specialize=["units", "width", "parts"])
def sum_parts(weight, bias, kept, units, width, parts, BLOCK: tl.constexpr):
    """Add parts [2 (bias, weight), U, parts, width] in their order to [U, width]."""
    blocks = tl.cdiv(width, BLOCK)
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    exists = i < width
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    size = units.to(tl.int64) * parts * width
    of_weight = tl.zeros([BLOCK], tl.float64)
    of_bias = tl.zeros([BLOCK], tl.float64)
    for part in range(parts):
        at = (unit * parts + part) * width + i
        of_bias += tl.load(kept + at, mask=exists, other=0.0)
        of_weight += tl.load(kept + size + at, mask=exists, other=0.0)
    tl.store(weight + unit * width + i, of_weight.to(tl.float32), mask=exists)
    tl.store(bias + unit * width + i, of_bias.to(tl.float32), mask=exists)
