"""The shapes in which the ops are measured; each op stands beside a floor and beside plain torch.

The floor is torch's own time for the work that is hard to avoid: one read of the op's inputs (`sum`). For class_gram
it is arithmetic: the products A A^T and D D^T of its gram way where rows are few, else one weight gradient of the
layer. An op may get below it: half of a symmetric product is enough, and torch is not the fastest at every read.

Plain torch yields the same numbers as the op, except for class_logits, which stands beside F.cross_entropy: one of its
eight results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn import ops


class Case(NamedTuple):
    """Three functions of the same inputs."""

    floor: Callable[[], object]
    op: Callable[[], object]
    plain: Callable[[], object]


def moments(rows: int, columns: int, classes: int) -> Case:
    """class_moments of features [rows, columns]; plain torch scatters twice."""
    x, y = _normal(rows, columns), _labels(rows, classes)
    return Case(x.sum, lambda: ops.class_moments(x, y, classes), lambda: _plain_moments(x, y, classes))


def added_moments(rows: int, columns: int, classes: int) -> Case:
    """add_class_moments to the moments of the same features; plain torch merges two sets of moments."""
    x, y = _normal(rows, columns), _labels(rows, classes)
    so_far = ops.class_moments(x, y, classes)
    plain_so_far = _plain_moments(x, y, classes)

    def op() -> ops.ClassMoments:
        ops.add_class_moments(so_far, x, y)
        return so_far

    def plain() -> tuple[Tensor, ...]:
        count, mean, m2 = plain_so_far
        new_count, new_mean, new_m2 = _plain_moments(x, y, classes)
        part = (new_count / (count + new_count).clamp(min=1))[:, None]
        delta = new_mean.sub_(mean)
        mean.addcmul_(delta, part)
        m2.add_(new_m2).addcmul_(delta.square_(), count[:, None] * part)
        count += new_count
        return plain_so_far

    return Case(x.sum, op, plain)


def logits(rows: int, classes: int) -> Case:
    """class_logits of logits [rows, classes]."""
    z, y = _normal(rows, classes), _labels(rows, classes)
    return Case(z.sum, lambda: ops.class_logits(z, y), lambda: F.cross_entropy(z, y))


def added_logits(rows: int, classes: int) -> Case:
    """add_class_logits, as the Monitor calls it at every step."""
    z, y = _normal(rows, classes), _labels(rows, classes)
    so_far = torch.zeros(len(ops.ClassLogits._fields), classes, dtype=torch.float64)

    def op() -> Tensor:
        ops.add_class_logits(so_far, z, y)
        return so_far

    return Case(z.sum, op, lambda: F.cross_entropy(z, y))


def gram(rows: int, inputs: int, outputs: int, classes: int) -> Case:
    """class_gram where every row is a sample; plain torch makes a weight gradient a class."""
    a, d, y = _normal(rows, inputs), _normal(rows, outputs), _labels(rows, classes)

    def plain() -> tuple[Tensor, Tensor]:
        gradients = torch.stack([(d[y == c].T @ a[y == c]).flatten() for c in range(classes)])
        sample_norms = a.square().sum(1) * d.square().sum(1)
        return gradients @ gradients.T, sample_norms.new_zeros(classes).index_add_(0, y, sample_norms)

    return Case(lambda: (a @ a.T, d @ d.T), lambda: ops.class_gram(a, d, y, classes), plain)


def token_gram(samples: int, tokens: int, inputs: int, outputs: int, classes: int) -> Case:
    """class_gram where a sample has many rows; plain torch makes a weight gradient a sample (`bmm`)."""
    a, d, y = _normal(samples, tokens, inputs), _normal(samples, tokens, outputs), _labels(samples, classes)
    rows_a, rows_d, rows_y = a.flatten(0, 1), d.flatten(0, 1), y.repeat_interleave(tokens)
    sample = torch.arange(samples).repeat_interleave(tokens)
    return Case(
        lambda: rows_d.T @ rows_a,
        lambda: ops.class_gram(rows_a, rows_d, rows_y, classes, sample),
        lambda: _gram_of_samples(d.transpose(1, 2) @ a, y, classes),
    )


def convolution_gram(images: int, inputs: int, outputs: int, size: int, classes: int) -> Case:
    """class_gram_conv of a 3x3 convolution; plain torch unfolds it and makes a weight gradient an image."""
    x, d, y = _normal(images, inputs, size, size), _normal(images, outputs, size, size), _labels(images, classes)
    weight = _normal(outputs, inputs, 3, 3)
    geometry = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)

    def floor() -> object:
        return torch.ops.aten.convolution_backward(d, x, weight, None, *geometry, (False, True, False))

    def op() -> object:
        return ops.class_gram_conv(x, d, y, classes, (3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))

    def plain() -> object:
        columns = F.unfold(x, 3, padding=1)
        return _gram_of_samples(d.flatten(2) @ columns.transpose(1, 2), y, classes)

    return Case(floor, op, plain)


def batch_norm(images: int, channels: int, places: int) -> Case:
    """norm_gradients of a BatchNorm: an image's part of the gradients of scale and bias."""
    x, dy = _normal(images, channels, places), _normal(images, channels, places)

    def plain() -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, (0, 2), unbiased=False, keepdim=True)
        return (dy * ((x - mean) * (variance + 1e-5).rsqrt())).sum(2), dy.sum(2)

    return Case(lambda: (x.sum(), dy.sum()), lambda: ops.norm_gradients(x, dy, channels, across_units=True), plain)


def layer_norm(samples: int, tokens: int, width: int) -> Case:
    """norm_gradients_rows of a LayerNorm: a sample's part of the gradients of scale and bias."""
    x, dy = _normal(samples, tokens, width), _normal(samples, tokens, width)
    return Case(
        lambda: (x.sum(), dy.sum()),
        lambda: ops.norm_gradients_rows(x, dy),
        lambda: ((dy * F.layer_norm(x, (width,))).sum(1), dy.sum(1)),
    )


def norms(shapes: list[tuple[int, ...]], classifier: int) -> Case:
    """parameter_norms of parameters of these shapes, with the rows of one; plain torch calls multi-tensor functions."""
    params = [_normal(*shape) for shape in shapes]
    grads = [_normal(*shape) for shape in shapes]
    previous = [w - 1e-3 * g for w, g in zip(params, grads, strict=True)]

    def four(w: list[Tensor], grad: list[Tensor], old: list[Tensor]) -> Tensor:
        dw = torch._foreach_sub(w, old)
        three = [torch.stack(list(torch._foreach_norm(tensors))) for tensors in (w, grad, dw)]
        return torch.stack([*three, torch.stack([t.sum() for t in torch._foreach_mul(w, dw)])], 1)

    def plain() -> tuple[Tensor, Tensor]:
        rows = (list(tensors[classifier].unbind()) for tensors in (params, grads, previous))
        return four(params, grads, previous), four(*rows)

    return Case(
        lambda: [t.sum() for tensors in (params, grads, previous) for t in tensors],
        lambda: ops.parameter_norms(params, grads, previous, rows=classifier),
        plain,
    )


def resnet50_shapes() -> Iterator[tuple[int, ...]]:
    """Yield the shapes of the 161 parameters of ResNet-50 (He et al. 2016) for 1,000 classes."""

    def convolution(outputs: int, inputs: int, kernel: int) -> Iterator[tuple[int, ...]]:
        yield from ((outputs, inputs, kernel, kernel), (outputs,), (outputs,))  # and its BatchNorm

    yield from convolution(64, 3, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from convolution(width, inputs, 1)
            yield from convolution(width, width, 3)
            yield from convolution(4 * width, width, 1)
            if block == 0:
                yield from convolution(4 * width, inputs, 1)
            inputs = 4 * width
    yield from ((1000, 2048), (1000,))


#: The cases by name, which fits the first column of the table (41 letters); each makes its inputs when it is called.
CASES: dict[str, Callable[[], Case]] = {
    "class_moments N 8192, D 2048, C 100": lambda: moments(8192, 2048, 100),
    "class_moments N 65536, D 512, C 10": lambda: moments(65536, 512, 10),
    "class_moments N 128, D 512, C 10": lambda: moments(128, 512, 10),
    "class_moments N 256, D 2048, C 1000": lambda: moments(256, 2048, 1000),
    "add_class_moments N 256, D 2048, C 1000": lambda: added_moments(256, 2048, 1000),
    "class_logits N 4096, C 1000": lambda: logits(4096, 1000),
    "class_logits N 65536, C 10": lambda: logits(65536, 10),
    "class_logits N 128, C 10": lambda: logits(128, 10),
    "class_gram R 128, I 512, O 512, C 10": lambda: gram(128, 512, 512, 10),
    "class_gram R 256, I 1024, O 1024, C 100": lambda: gram(256, 1024, 1024, 100),
    "class_gram R 32x128, I 256, O 1024, C 10": lambda: token_gram(32, 128, 256, 1024, 10),
    "class_gram_conv N 128, 16x32x32 to 16": lambda: convolution_gram(128, 16, 16, 32, 10),
    "class_gram_conv N 128, 64x8x8 to 64": lambda: convolution_gram(128, 64, 64, 8, 10),
    "norm_gradients BatchNorm 128x16x32x32": lambda: batch_norm(128, 16, 32 * 32),
    "norm_gradients LayerNorm 32x128x256": lambda: layer_norm(32, 128, 256),
    "parameter_norms ResNet-50": lambda: norms([*resnet50_shapes()], classifier=159),
    "class_moments of no rows (call alone)": lambda: moments(0, 1, 1),
    "class_logits of no rows (call alone)": lambda: logits(0, 1),
    "add_class_logits of no rows (call alone)": lambda: added_logits(0, 1),
}


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape)


def _labels(rows: int, classes: int) -> Tensor:
    return torch.randint(0, classes, (rows,))


def _plain_moments(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.bincount(y, minlength=classes)
    mean = x.new_zeros(classes, x.shape[1]).index_add_(0, y, x) / count.clamp(min=1)[:, None]
    return count, mean, torch.zeros_like(mean).index_add_(0, y, (x - mean[y]).square_())


def _gram_of_samples(gradients: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return what class_gram does, from the weight gradient of each sample [N, ...]."""
    g = gradients.flatten(1)
    of_class = g.new_zeros(classes, g.shape[1]).index_add_(0, y, g)
    return of_class @ of_class.T, g.new_zeros(classes).index_add_(0, y, g.square().sum(1))
