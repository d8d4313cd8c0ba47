"""The watched functions, one file each: what the gradients of their parameters are made of."""

from imbdyn.taps.rules import (
    addmm,
    batch_norm,
    convolution,
    elementwise,
    embedding,
    embedding_bag,
    expand,
    group_norm,
    instance_norm,
    layer_norm,
    linear,
    matmul,
    rms_norm,
)

__all__ = [
    "addmm",
    "batch_norm",
    "convolution",
    "elementwise",
    "embedding",
    "embedding_bag",
    "expand",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "linear",
    "matmul",
    "rms_norm",
]
