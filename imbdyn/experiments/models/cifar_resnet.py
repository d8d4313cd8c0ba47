"""ResNet-20 and ResNet-32 for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2), as in LDAM's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from imbdyn.experiments.models.spec import ModelSpec

#: Residual blocks in each of the three stages.
_BLOCKS = {"resnet20": 3, "resnet32": 5}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm; the shortcut is option A: every second pixel, padded with zero channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.padding = (after - before) // 2
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps [N, after, H / stride, W / stride]."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + shortcut)


class CifarResNet(nn.Module):
    """ResNet-(6 `blocks` + 2): stages of 16, 32 and 64 channels, and a linear classifier of the mean over pixels.

    Weights of convolutions and of the classifier are drawn by kaiming_normal_, biases as torch does.
    """

    def __init__(self, num_classes: int, blocks: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
        self.blocks = nn.Sequential(*(ResidualBlock(before, after) for before, after in pairwise(widths)))
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        maps = self.blocks(F.relu(self.bn1(self.conv1(images))))
        logits: Tensor = self.linear(maps.mean((2, 3)))
        return logits


@dataclass(frozen=True, kw_only=True)
class CifarResNetSpec(ModelSpec):
    """`resnet20`, `resnet32`: CifarResNet."""

    def build(self, shape: Sequence[int], num_classes: int) -> CifarResNet:
        """Make it."""
        return CifarResNet(num_classes, _BLOCKS[self.name], self.images(shape, at_least=4)[0])
