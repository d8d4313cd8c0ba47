"""The augmentation that is usual on CIFAR: random crops and flips."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Black pixels added on each side before an image is cropped to its size (He et al. 2016, arXiv 1512.03385).
PADDING = 4


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to 4 pixels in both directions, and mirror it with probability 1/2.

    Args:
        images: [N, C, H, W], not scaled yet: what is shifted in is black.
        generator: on the CPU; three draws an image.

    Returns: of the same shape and dtype.
    """
    count, _, height, width = images.shape
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator).to(images.device)
    mirrored = torch.randint(0, 2, (count,), generator=generator).bool().to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(mirrored[:, None], columns.flip(0), columns)
    padded = F.pad(images, (PADDING,) * 4)
    samples = torch.arange(count, device=images.device)[:, None, None]
    # With the channels last an index of samples, rows and columns takes whole pixels.
    return padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
