"""Networks of our own, small enough for every commit: what a batch can go through on its way to the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from architectures import CLASSES, SAMPLES, Architecture, images
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

WIDTH = 12


class Unet(nn.Module):
    """An encoder and a decoder with a skip connection (Ronneberger et al. 2015), classifying by the mean pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(inplace=True))
        self.bottom = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16), nn.GELU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        joined = self.join(torch.cat([skip, self.up(self.bottom(skip))], 1))
        return self.head(F.silu(joined)).mean((2, 3))


class Encoder(nn.Module):
    """nn.TransformerEncoder over tokens, the batch in the first or in the second dimension."""

    def __init__(self, *, batch_first: bool, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, 3, 24, dropout=0.0, batch_first=batch_first, norm_first=norm_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.position = nn.Parameter(torch.randn(SAMPLES, WIDTH) / 8)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        tokens = x + self.position
        if self.batch_first:
            return self.head(self.encoder(tokens).mean(1))
        return self.head(self.encoder(tokens.transpose(0, 1)).mean(0))


class SequenceFirst(nn.Module):
    """Every layer sees [T, N, D], and T is N: the shape does not tell which is the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.second = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(torch.tanh(self.first(x.transpose(0, 1))))
        tokens = torch.tanh(self.second(tokens * self.scale).cumsum(0))
        return self.head(tokens[-1])


class Windows(nn.Module):
    """Attention in windows that are folded into the batch, as many windows as samples: [N W, t, D] or [W N, t, D]."""

    def __init__(self, *, samples_first: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.bias_table = nn.Parameter(torch.randn(7, 2))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.samples_first = samples_first

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unflatten(1, (SAMPLES, 4))  # [N, W, t, D] with t 4
        folded = (windows if self.samples_first else windows.transpose(0, 1)).flatten(0, 1)
        q, k, v = self.qkv(folded).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        distance = torch.arange(4)[:, None] - torch.arange(4) + 3
        scores = q @ k.transpose(2, 3) + self.bias_table[distance].permute(2, 0, 1)
        folded = torch.tanh(self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))
        unfolded = folded.unflatten(0, (SAMPLES, SAMPLES))
        return self.head((unfolded if self.samples_first else unfolded.transpose(0, 1)).flatten(1, 2).mean(1))


class HeadsInBatch(nn.Module):
    """Heads folded into the batch, as many as samples, and a layer that all heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * SAMPLES * 3)
        self.mix = nn.Linear(3, 3)
        self.out = nn.Linear(SAMPLES * 3, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, SAMPLES, 3)).permute(2, 0, 3, 1, 4).flatten(1, 2)  # [N heads, T, 3]
        values = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), torch.tanh(self.mix(v)))
        joined = values.unflatten(0, (len(x), SAMPLES)).transpose(1, 2).flatten(2)
        return self.head(torch.tanh(self.out(joined)).mean(1))


class TwoViews(nn.Module):
    """Two views of each sample one after the other in the batch: row i belongs to sample i mod N."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        views = self.body(torch.cat([x, x.flip(1).square()]))
        return self.head(torch.cat(views.chunk(2), 1))


class SortedInside(nn.Module):
    """Sorts its batch, as packing by length does, and puts the logits back into the order of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        return self.head(self.body(x[order]).tanh()[order.argsort()])


class Experts(nn.Module):
    """Each token goes to one of three experts (Fedus et al. 2021): a layer sees those rows that came its way."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weight, chosen = self.gate(tokens).softmax(-1).max(-1)
        out = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            (rows,) = torch.where(chosen == i)
            out = out.index_add(0, rows, torch.tanh(expert(tokens[rows])) * weight[rows, None])
        return self.head(out.unflatten(0, x.shape[:2]).mean(1))


class ByHand(nn.Module):
    """Bare parameters: class token, position embedding, RMSNorm, einsum, gates, and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, 8, WIDTH))
        self.gain = nn.Parameter(torch.randn(WIDTH))
        self.heads = nn.Parameter(torch.randn(2, WIDTH, 6) / 3)
        self.gate = nn.Parameter(torch.randn(()))
        self.shared = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3)
        self.head = nn.Parameter(torch.randn(WIDTH, CLASSES) / 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        normed = tokens * torch.rsqrt(tokens.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.gain)
        heads = torch.einsum("ntd,hde->nthe", normed, self.heads).flatten(2)
        tokens = tokens + torch.sigmoid(self.gate) * torch.tanh(heads @ self.shared)
        tokens = torch.tanh(torch.matmul(tokens, self.shared.t()))
        return tokens[:, 0] @ self.head


class Recurrent(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.layer = layer(WIDTH, 9, batch_first=True)
        self.head = nn.Linear(9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class BagOfWords(nn.Module):
    """An embedding_bag, an embedding with a padding index, and convolutions over words (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(30, WIDTH, mode="mean")
        self.words = nn.Embedding(30, WIDTH, padding_idx=0)
        self.convolution = nn.Conv1d(WIDTH, 10, 3, padding=1)
        self.head = nn.Linear(10 + WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        maps = torch.relu(self.convolution(self.words(ids).transpose(1, 2)))
        return self.head(torch.cat([maps.amax(2), self.bag(ids)], 1))


def _words(generator: torch.Generator) -> dict[str, Tensor]:
    return {"ids": torch.randint(0, 30, (SAMPLES, 7), generator=generator)}


class Named(nn.Sequential):
    """A sequence whose argument is called x, as the table's inputs are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def _pooled(*layers: nn.Module, channels: int, pool: nn.Module) -> nn.Module:
    return Named(*layers, pool, nn.Flatten(), nn.Linear(channels, CLASSES))


def _group_norm_cnn() -> nn.Module:
    return _pooled(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Conv2d(8, 16, 1),
        nn.GroupNorm(4, 16),
        nn.PReLU(16),
        channels=16,
        pool=nn.AdaptiveAvgPool2d(1),
    )


def _padded_cnn() -> nn.Module:
    return _pooled(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, padding_mode="circular", groups=2),
        nn.InstanceNorm2d(6, affine=True),
        nn.ELU(inplace=True),
        nn.Conv2d(6, 8, (2, 3), padding="same", padding_mode="replicate"),
        nn.Tanh(),
        channels=8,
        pool=nn.AdaptiveAvgPool2d(1),
    )


def _channels_last_cnn() -> nn.Module:
    return _group_norm_cnn().to(memory_format=torch.channels_last)


def _video_cnn() -> nn.Module:
    return _pooled(
        nn.Conv3d(2, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.ConvTranspose3d(6, 4, 2, stride=2, bias=False),
        nn.ReLU(),
        channels=4,
        pool=nn.AdaptiveAvgPool3d(1),
    )


def _mlp(parametrization: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return Named(
        parametrization(nn.Linear(WIDTH, 16)),
        nn.ReLU(inplace=True),
        parametrization(nn.Linear(16, 16)),
        nn.Tanh(),
        nn.Linear(16, CLASSES),
    )


ARCHITECTURES = {
    "mlp, weight_norm": Architecture(lambda: _mlp(weight_norm), images(WIDTH)),
    "mlp, spectral_norm": Architecture(lambda: _mlp(spectral_norm), images(WIDTH)),
    "cnn, GroupNorm": Architecture(_group_norm_cnn, images(3, 10, 10)),
    "cnn, channels_last": Architecture(_channels_last_cnn, images(3, 10, 10)),
    # InstanceNorm takes the mean of each sample and channel away: the bias before it is without effect
    "cnn, padding modes": Architecture(_padded_cnn, images(3, 10, 10), zero_gradient=r"^2\.bias$"),
    "cnn, video": Architecture(_video_cnn, images(2, 3, 6, 6)),
    "U-Net": Architecture(Unet, images(3, 12, 12)),
    "encoder, batch first": Architecture(lambda: Encoder(batch_first=True), images(SAMPLES, WIDTH)),
    "encoder, sequence first": Architecture(lambda: Encoder(batch_first=False), images(SAMPLES, WIDTH)),
    "encoder, norm first": Architecture(lambda: Encoder(batch_first=True, norm_first=True), images(SAMPLES, WIDTH)),
    "sequence first, T == N": Architecture(SequenceFirst, images(SAMPLES, WIDTH)),
    "windows in the batch": Architecture(lambda: Windows(samples_first=True), images(4 * SAMPLES, WIDTH)),
    "windows before the batch": Architecture(lambda: Windows(samples_first=False), images(4 * SAMPLES, WIDTH)),
    "heads in the batch": Architecture(HeadsInBatch, images(6, WIDTH)),
    "two views in the batch": Architecture(TwoViews, images(WIDTH)),
    # in another order in each batch, so that no experiment on one holds for the next
    "batch sorted inside": Architecture(SortedInside, images(WIDTH), readable=False),
    "bare parameters": Architecture(ByHand, images(7, WIDTH)),
    "words": Architecture(BagOfWords, _words),
    "experts": Architecture(Experts, images(6, WIDTH), readable=False),
    "lstm": Architecture(lambda: Recurrent(nn.LSTM), images(6, WIDTH), readable=False),
    "gru": Architecture(lambda: Recurrent(nn.GRU), images(6, WIDTH), readable=False),
}
