"""Image networks of timm, at 64 x 64 pixels where they allow it."""

from __future__ import annotations

from typing import Any

import pytest
from architectures import CLASSES, KEY_BIAS, Architecture, images
from torch import nn


def timm(
    name: str, size: int | tuple[int, int] = 64, *, zero_gradient: str | None = None, **options: Any
) -> Architecture:
    """Return timm's network `name`, made with `options`, for images of this size."""

    def make() -> nn.Module:
        library = pytest.importorskip("timm")
        network: nn.Module = library.create_model(name, pretrained=False, num_classes=CLASSES, **options)
        return network

    height, width = (size, size) if isinstance(size, int) else size
    return Architecture(make, images(3, height, width), zero_gradient=zero_gradient)


SMALL_VIT: dict[str, Any] = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3}

ARCHITECTURES = {
    # convolutions and BatchNorm
    "resnet18": timm("resnet18"),
    "resnet50": timm("resnet50"),
    "seresnet18": timm("legacy_seresnet18"),
    "regnetx_002": timm("regnetx_002"),  # grouped convolutions
    "densenet121": timm("densenet121"),
    "mobilenetv3_small": timm("mobilenetv3_small_050"),  # depthwise convolutions
    "efficientnet_b0": timm("efficientnet_b0"),
    "ghostnet": timm("ghostnet_050"),
    "repvgg_a0": timm("repvgg_a0"),
    "hrnet_w18_small": timm("hrnet_w18_small"),
    # convolutions with other normalisations, or with weights that are computed from parameters
    "resnetv2_bit": timm("resnetv2_50x1_bit"),  # GroupNorm; standardised weights
    "nf_regnet_b0": timm("nf_regnet_b0"),  # no normalisation; standardised and scaled weights
    "convnext_atto": timm("convnext_atto"),  # LayerNorm over channels, LayerScale
    "convnextv2_atto": timm("convnextv2_atto"),  # global response normalisation
    # GroupNorm over all; x minus the mean of its neighbours, which takes the bias of the norm away
    "poolformer_s12": timm("poolformer_s12", zero_gradient=r"norm1\.bias$"),
    # tokens
    "vit_tiny": timm("vit_tiny_patch16_224", **SMALL_VIT),
    "vit_relpos": timm("vit_relpos_small_patch16_224", **SMALL_VIT),
    "deit_distilled": timm("deit_tiny_distilled_patch16_224", **SMALL_VIT),
    "cait": timm("cait_xxs24_224", zero_gradient=KEY_BIAS, **SMALL_VIT),  # class attention, talking heads
    "beit": timm("beit_base_patch16_224", **SMALL_VIT),  # q, k and v biases by cat; relative positions
    "eva02": timm("eva02_tiny_patch14_224", 56, img_size=56, embed_dim=48, depth=2, num_heads=3),
    "swin": timm(
        "swin_tiny_patch4_window7_224",
        (64, 32),
        img_size=(64, 32),
        window_size=4,  # 8 windows in the first stage: as many as samples
        embed_dim=24,
        depths=(2, 2),
        num_heads=(2, 4),
    ),
    # the bias of a window's relative positions, before the softmax
    "swinv2_cr": timm(
        "swinv2_cr_tiny_ns_224",
        img_size=64,
        embed_dim=24,
        depths=(2, 2),
        num_heads=(2, 4),
        zero_gradient=r"meta_mlp\.fc2\.bias$",
    ),
    # a token's bias is the same in all channels, and the LayerNorm over the channels takes it away
    "mixer": timm("mixer_s32_224", img_size=64, zero_gradient=r"mlp_tokens\.fc2\.bias$"),
    "gmlp": timm("gmlp_ti16_224", img_size=64),
    "resmlp": timm("resmlp_12_224", img_size=64),  # affine instead of normalisation
    "pvt_v2_b0": timm("pvt_v2_b0"),
    "twins_svt": timm("twins_svt_small", img_size=64),
    # both
    "coatnet": timm("coatnet_pico_rw_224", img_size=64),
    "maxvit": timm("maxvit_rmlp_pico_rw_256", img_size=64),
    "levit": timm("levit_128s", 64, img_size=64),
    "mobilevit_xxs": timm("mobilevit_xxs"),  # pixels of a patch folded into the batch
    "xcit": timm("xcit_nano_12_p16_224", zero_gradient=KEY_BIAS),  # attention between channels
    "edgenext": timm("edgenext_xx_small"),
}
