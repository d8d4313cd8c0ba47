"""On each architecture: what share is read, does it sum to the gradient, and is every row with the right class?"""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from architectures import CLASSES, LABELS, Architecture, table
from torch import Tensor, nn

import imbdyn
from imbdyn.reference import class_gradients

#: timm, transformers and torchvision deprecate what they themselves call.
pytestmark = [
    pytest.mark.parametrize("architecture", table()),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:timm"),
]

COVERED_SHARE, WORST_RESIDUAL = 0.995, 1e-5
#: Of sum_c ||G_c||. Both sides are float32 and come from the same forward pass; what differs is the order of sums.
TOLERANCE = 1e-5
#: Of the network's sum_c ||G_c||: what rounding leaves of a gradient that is zero in exact arithmetic.
ROUNDING = 1e-6


def losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return each sample's part of the mean cross-entropy; what is random in the model is the same in every call."""
    torch.manual_seed(2)
    output = model(**batch)
    logits = output if isinstance(output, Tensor) else output.logits
    return F.cross_entropy(logits, LABELS, reduction="none") / len(LABELS)


def one_step(model: nn.Module, batch: dict[str, Tensor], out: Path) -> imbdyn.Trace:
    """Train one monitored step; a failure of the instrument raises, what it says of its coverage is in the trace."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imbdyn.ImbdynWarning)
        with imbdyn.Monitor(model, optimizer, CLASSES, out, interval=1, on_error="raise") as monitor:
            with monitor.batch(LABELS):
                losses(model, batch).sum().backward()
            optimizer.step()
    return imbdyn.open_trace(out)


def test_nearly_all_is_covered_and_sums_to_the_gradient(architecture: Architecture, tmp_path: Path) -> None:
    model = architecture.build()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    trace = one_step(model, architecture.batch(), tmp_path / "run")
    coverage = trace.run["coverage"]
    not_covered = {
        name: entry["reason"]
        for name, entry in coverage["parameters"].items()
        if not entry["covered"] or name not in sizes
    }
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    used = sum(size for name, size in sizes.items() if name not in unused)
    share = 1 - sum(sizes[name] for name in not_covered if name not in unused) / used
    assert coverage["parameters"].keys() == sizes.keys()
    assert coverage["share"] == pytest.approx(share)
    assert share >= COVERED_SHARE or not architecture.readable, not_covered
    assert all(not_covered.values()), "what is not covered has its reason"

    (scale,) = trace.steps.grad_scale
    assert scale == pytest.approx(1, abs=1e-5), "nothing scales the loss"
    residual = trace.parameters.set_index("parameter").residual
    assert set(residual[residual.notna()].index) == sizes.keys() - not_covered.keys()
    worst = residual.nlargest(3)
    assert worst.max() <= WORST_RESIDUAL, worst.to_dict()


def test_class_gradients_are_those_of_one_backward_a_class(architecture: Architecture, tmp_path: Path) -> None:
    """BatchNorm, which mixes the samples in training mode, keeps its statistics here, as in fine-tuning."""
    model = architecture.build()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    batch = architecture.batch()
    twin = copy.deepcopy(model)
    read = grams(one_step(model, batch, tmp_path / "run"))
    expected = {
        name: gradients.reshape(CLASSES, -1).double() @ gradients.reshape(CLASSES, -1).double().T
        for name, gradients in class_gradients(losses(twin, batch), LABELS, CLASSES, twin.named_parameters()).items()
    }
    network = float(sum(expected.values()).diagonal().sqrt().sum())

    assert read
    assert read.keys() <= expected.keys()
    wrong = {}
    for name, gram in read.items():
        norms, parts = expected[name].diagonal().sqrt(), float(expected[name].diagonal().sqrt().sum())
        if architecture.zero_gradient is not None and re.search(architecture.zero_gradient, name):
            norm_error, cos_error, tolerance = float(gram.diagonal().sqrt().sum()), parts, ROUNDING * network
        else:
            norm_error = float((gram.diagonal().sqrt() - norms).abs().max())
            cos_error, tolerance = float((gram - expected[name]).abs().max()) / (parts or 1.0), TOLERANCE * parts
        if not max(norm_error, cos_error) <= tolerance:
            wrong[name] = f"{max(norm_error, cos_error):.1e} > {tolerance:.1e}"
    assert not wrong, wrong


def grams(trace: imbdyn.Trace) -> dict[str, Tensor]:
    """Return <G_a, G_b> [C, C] of each parameter, from the norms and cosines of a trace of one step."""
    norms, cosines = trace.class_gradients, trace.class_gradient_pairs
    norm = {}
    for parameter, rows in norms[norms.parameter != "*"].groupby("parameter"):
        norm[parameter] = torch.zeros(CLASSES, dtype=torch.float64)
        norm[parameter][rows.class_id.tolist()] = torch.tensor(rows.grad_norm.tolist(), dtype=torch.float64)
    found = {parameter: values.square().diag() for parameter, values in norm.items()}
    for row in cosines[cosines.parameter != "*"].fillna({"grad_cos": 0.0}).itertuples():  # null beside a norm of 0
        a, b = row.class_a, row.class_b
        found[row.parameter][[a, b], [b, a]] = row.grad_cos * norm[row.parameter][a] * norm[row.parameter][b]
    return found
