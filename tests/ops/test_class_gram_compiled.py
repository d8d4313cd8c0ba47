"""class_gram's Triton kernels compiled for GPUs that are not here: registers and shared memory suffice."""

from __future__ import annotations

import pytest
import torch
from compiled_kernels import TARGETS, Kernel, compile_kernels

from imbdyn.ops.class_gram.triton_choice import (
    GradientConfig,
    Norms,
    PairsConfig,
    SlotsConfig,
    gradient_config,
    pairs_config,
    slots_config,
    within_config,
)

#: Compiling takes long, and where there is a GPU every call compiles what it needs.
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="for GPUs that are not here")

_KERNELS = "imbdyn.ops.class_gram.triton_"
_POINTER = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def _numbers(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), "i32")


def _aligned(dtype: torch.dtype) -> int:
    return 16 // dtype.itemsize


def gradient(
    config: GradientConfig, dtype: torch.dtype, precision: str, by: Norms | None, *, channels: int = 0, add: bool = True
) -> Kernel:
    """Return the kernel of chunks' gradients, by sample unless `by` is None; with channels that of a convolution."""
    block_o, block_i, block_r, warps, stages = config
    signature = {
        **dict.fromkeys(("inputs", "grads"), _POINTER[dtype]),
        **dict.fromkeys(("chunk_begin", "chunk_end", "chunk_slot", "chunks_used"), "*i32"),
        **{"slots": "*fp32", **_numbers("length columns input_row outputs grad_row")},
    }
    constants: dict[str, object] = {
        **{"BLOCK_O": block_o, "BLOCK_I": block_i, "BLOCK_R": block_r, "PRECISION": precision, "ADD": add},
        **{"INPUTS_ALIGNED": 1 if channels % 8 else _aligned(dtype), "GRADS_ALIGNED": _aligned(dtype)},
    }
    name = "rows_kernel"
    if by is None:
        signature |= {"input_rows": "*i32", "grad_rows": "*i32"}
    else:
        name = "samples_kernel"
        signature |= {
            "samples": "*i32",
            "chunk_label": "*i32",
            "norms": "*fp64",
            **_numbers("input_sample grad_sample"),
        }
        signature |= _numbers("y_stride x_stride height width y_step x_step y_before x_before y_dilation x_dilation")
        constants |= {"CONVOLUTION": channels > 0, "ONE_TAP": channels > 0 and channels % block_i == 0}
        constants |= {"CHANNELS": channels, "TAPS_X": 3, "OUT_X": 56, "ONE": by is Norms.BY_SLOT}
        constants["NORMS"] = by is not Norms.NONE
    wide = ("inputs", "grads", "slots", "columns", "outputs", "input_row", "grad_row", "y_stride", "x_stride")
    options = {"num_warps": warps, "num_stages": stages}
    wide = tuple(one for one in wide if one in signature and (channels % 8 == 0 or one[1:] != "_stride"))
    return Kernel(f"{_KERNELS}gradients:{name}", signature, constants, options, wide)


def slots(config: SlotsConfig, precision: str, one: bool = True) -> Kernel:
    block_s, block, lanes, stages = config
    signature = {
        **{"slots": "*fp32", "slot_label": "*i32", "slots_used": "*i32", "gram": "*fp64"},
        **_numbers("num_classes size part"),
    }
    constants = {"ONE": one, "LANES": lanes, "BLOCK_S": block_s, "BLOCK": block, "PRECISION": precision}
    options = {"num_warps": 4, "num_stages": stages}
    return Kernel(f"{_KERNELS}slots:slots_kernel", signature, constants, options, ("slots", "size", "part"))


def pairs(
    config: PairsConfig, dtype: torch.dtype, precision: str, exact: str, *, within: bool = False, single: bool = False
) -> Kernel:
    block, columns, warps, stages = config
    signature = {
        **dict.fromkeys(("inputs", "grads"), _POINTER[dtype]),
        **dict.fromkeys(("samples", "labels", "rank", "unit"), "*i32"),
        "counted": "*i64",
        **dict.fromkeys(("norms", "bias_norms"), "*fp64"),
        **_numbers("length columns input_sample input_row outputs grad_sample grad_row"),
    }
    constants: dict[str, object] = {
        **{"WEIGHT": True, "BIAS": True, "UNITS": False, "SINGLE": single},
        **{"BLOCK": block, "COLUMNS": columns, "PRECISION": precision},
        **dict.fromkeys(("INPUTS_ALIGNED", "GRADS_ALIGNED"), _aligned(dtype)),
    }
    if not within:
        signature |= {"label_of_rank": "*i32", "gram": "*fp64", "bias_gram": "*fp64", "num_classes": "i32"}
        constants |= {"NORMS": True, "EXACT": exact}
    wide = ("inputs", "grads", "columns", "outputs", "input_sample", "input_row", "grad_sample", "grad_row")
    name = "within_kernel" if within else "pairs_kernel"
    return Kernel(f"{_KERNELS}pairs:{name}", signature, constants, {"num_warps": warps, "num_stages": stages}, wide)


def few() -> list[Kernel]:
    """Return one kernel of each kind, as a training step in bfloat16 needs them."""
    half = torch.bfloat16
    return [
        gradient(gradient_config(197, 768, 3072, half, Norms.NONE, False, True, 0), half, "ieee", None),
        gradient(gradient_config(196, 2304, 256, half, Norms.IN_LOOP, True, True, 256), half, "ieee", Norms.IN_LOOP),
        slots(slots_config(16), "tf32x3"),
        pairs(pairs_config(128, half, "ieee"), half, "ieee", "tf32x3"),
        pairs(within_config(half), half, "ieee", "tf32x3", within=True),
    ]


def every(target: str) -> list[Kernel]:
    """Return all committed configurations of a target, as the shapes choose them."""
    large, hip = target == "sm_90", target.startswith("gfx")
    exact = "ieee" if hip else "tf32x3"
    kernels = [slots(slots_config(n), exact, n <= 32) for n in (16, 32, 100)]
    for dtype, precisions in ((torch.bfloat16, ["ieee"]), (torch.float32, ["ieee"] if hip else ["tf32", "tf32x3"])):
        for precision in precisions:
            for rows in (128, 1024, 5000):
                kernels += [
                    pairs(pairs_config(rows, dtype, precision), dtype, precision, exact, single=one)
                    for one in (False, True)
                ]
            kernels.append(pairs(within_config(dtype), dtype, precision, exact, within=True))
            for columns, outputs in ((768, 3072), (1000, 1000), (16, 128), (64, 64), (128, 32)):
                for by in (None, Norms.BY_SLOT, Norms.IN_LOOP):
                    config = gradient_config(197, columns, outputs, dtype, by or Norms.NONE, by is not None, large, 0)
                    kernels += [gradient(config, dtype, precision, by, add=add) for add in (False, True)]
            for channels, outputs, places in (
                (3, 64, 12544),
                (24, 64, 49),
                (64, 64, 3136),
                (128, 128, 784),
                (512, 512, 49),
            ):
                for by in (Norms.NONE, Norms.BY_SLOT, Norms.IN_LOOP):
                    config = gradient_config(places, 9 * channels, outputs, dtype, by, True, large, channels)
                    kernels.append(gradient(config, dtype, precision, by, channels=channels))
    return list({repr(kernel): kernel for kernel in kernels}.values())


def check(kernels: list[Kernel], target: str) -> None:
    shared = TARGETS[target][1]
    for kernel, compiled in zip(kernels, compile_kernels(kernels, target), strict=True):
        assert compiled.spills == 0, (kernel, compiled)
        assert compiled.shared <= shared, (kernel, compiled)


def test_kernels_of_a_training_step_fit_hopper() -> None:
    check(few(), "sm_90")


@pytest.mark.nightly
@pytest.mark.parametrize("target", TARGETS)
def test_every_configuration_fits(target: str) -> None:
    check(every(target), target)
