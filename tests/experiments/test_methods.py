"""Each method against its formula, written out by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.methods import METHODS, Method
from imbdyn.experiments.methods.class_balanced import ClassBalanced, effective_number_weights
from imbdyn.experiments.methods.cross_entropy import CrossEntropy
from imbdyn.experiments.methods.focal import Focal
from imbdyn.experiments.methods.ldam import CosineLinear, Ldam, margins
from imbdyn.experiments.methods.logit_adjustment import LogitAdjustment
from imbdyn.experiments.methods.oversampling import Oversampling

COUNTS = torch.tensor([5000, 300, 16])
LABELS = torch.tensor([0, 0, 1, 2, 0, 1])


@pytest.fixture
def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(6, 3, generator=generator, dtype=torch.float64)).requires_grad_()


def log_softmax(z: list[float], label: int) -> float:
    return z[label] - math.log(sum(math.exp(value) for value in z))


def test_every_method_is_a_method_of_its_name() -> None:
    assert [METHODS.find(name)(name=name).name for name in METHODS.names] == METHODS.names


def test_cross_entropy_is_the_mean_of_minus_log_p(logits: torch.Tensor) -> None:
    rows = zip(logits.tolist(), LABELS.tolist(), strict=True)
    expected = -sum(log_softmax(z, y) for z, y in rows) / 6
    assert CrossEntropy().loss(logits, LABELS, COUNTS, 1).item() == pytest.approx(expected, rel=1e-14)


def test_class_balanced_weights_are_inverse_effective_numbers_that_sum_to_the_classes() -> None:
    numbers = [(1 - 0.9999**n) / (1 - 0.9999) for n in COUNTS.tolist()]
    inverse = [1 / number for number in numbers]
    expected = [3 * value / sum(inverse) for value in inverse]
    assert effective_number_weights(COUNTS, 0.9999).tolist() == pytest.approx(expected, rel=1e-11)
    assert effective_number_weights(COUNTS, 0.0).tolist() == [1.0, 1.0, 1.0]
    # beta -> 1: by 1 / n
    ratio = effective_number_weights(COUNTS, 1 - 1e-9)
    assert (ratio[2] / ratio[0]).item() == pytest.approx(5000 / 16, rel=1e-5)


def test_class_balanced_loss_is_a_weighted_mean(logits: torch.Tensor) -> None:
    w = effective_number_weights(COUNTS, 0.999).tolist()
    rows = list(zip(logits.tolist(), LABELS.tolist(), strict=True))
    expected = -sum(w[y] * log_softmax(z, y) for z, y in rows) / sum(w[y] for _, y in rows)
    loss = ClassBalanced(beta=0.999).loss(logits, LABELS, COUNTS, 1)
    assert loss.item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_and_its_gradient(logits: torch.Tensor, gamma: float) -> None:
    loss = Focal(gamma=gamma).loss(logits, LABELS, COUNTS, 1)
    loss.backward()
    assert logits.grad is not None
    total = 0.0
    for i, (z, y) in enumerate(zip(logits.tolist(), LABELS.tolist(), strict=True)):
        log_p = log_softmax(z, y)
        p = math.exp(log_p)
        total -= (1 - p) ** gamma * log_p / 6
        # d/dlog p of -(1 - p)^gamma log p, and dlog p / dz_k = [k = y] - p_k
        slope = gamma * (1 - p) ** (gamma - 1) * p * log_p - (1 - p) ** gamma if gamma else -1.0
        softmax = [math.exp(log_softmax(z, k)) for k in range(3)]
        expected = [slope * ((k == y) - softmax[k]) / 6 for k in range(3)]
        assert logits.grad[i].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert loss.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("gap", [30.0, 200.0])
def test_focal_loss_of_a_sample_that_is_known_has_a_finite_gradient(gamma: float, gap: float) -> None:
    logits = torch.tensor([[gap, 0.0]], requires_grad=True)
    Focal(gamma=gamma).loss(logits, torch.tensor([0]), COUNTS[:2], 1).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() < 1e-6


def test_ldam_margins_are_inverse_fourth_roots() -> None:
    expected = [0.5 * (16 / n) ** 0.25 for n in COUNTS.tolist()]
    assert margins(COUNTS, 0.5).tolist() == pytest.approx(expected, rel=1e-14)
    assert margins(COUNTS, 0.5)[2].item() == 0.5
    assert margins(torch.tensor([5000, 50]), 0.5).tolist() == pytest.approx([0.15811388300841897, 0.5], rel=1e-14)


@pytest.mark.parametrize("epoch", [160, 161])
def test_ldam_subtracts_the_margin_and_reweights_late(epoch: int) -> None:
    cosines = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    loss = Ldam().loss(30.0 * cosines, LABELS, COUNTS, epoch)
    m = margins(COUNTS, 0.5).tolist()
    w = effective_number_weights(COUNTS, 0.9999).tolist() if epoch > 160 else [1.0] * 3
    total = 0.0
    for row, y in zip(cosines.tolist(), LABELS.tolist(), strict=True):
        total -= w[y] * log_softmax([30.0 * (value - m[y] * (k == y)) for k, value in enumerate(row)], y)
    assert loss.item() == pytest.approx(total / sum(w[y] for y in LABELS.tolist()), rel=1e-13)


def test_ldam_gives_the_model_a_cosine_classifier() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 3)))
    Ldam(scale=20.0).prepare(model, COUNTS)
    assert isinstance(model[0], nn.Linear)
    classifier = model[2][0]
    assert isinstance(classifier, CosineLinear)
    assert classifier.weight.norm(dim=1).tolist() == pytest.approx([1.0] * 3)
    x = torch.randn(5, 3)
    with torch.no_grad():
        classifier.weight.mul_(torch.tensor([[3.0], [0.5], [7.0]]))
    cosine = torch.nn.functional.cosine_similarity(x[:, None], classifier.weight[None], dim=2)
    torch.testing.assert_close(classifier(x), 20.0 * cosine)


def test_ldam_needs_a_linear_classifier() -> None:
    with pytest.raises(ConfigError, match=r"needs a model with a torch\.nn\.Linear of 3 outputs"):
        Ldam().prepare(nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), COUNTS)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logit_adjustment_is_its_pairwise_form(logits: torch.Tensor, tau: float) -> None:
    """log(1 + sum_{y' != y} (pi_y' / pi_y)^tau exp(z_y' - z_y)), Menon et al., equation 11 in other words."""
    n = COUNTS.tolist()
    total = 0.0
    for z, y in zip(logits.tolist(), LABELS.tolist(), strict=True):
        others = [k for k in range(3) if k != y]
        total += math.log1p(sum((n[k] / n[y]) ** tau * math.exp(z[k] - z[y]) for k in others))
    loss = LogitAdjustment(tau=tau).loss(logits, LABELS, COUNTS, 1)
    assert loss.item() == pytest.approx(total / 6, rel=1e-13)


def test_logit_adjustment_post_hoc_changes_predictions_and_not_the_training(logits: torch.Tensor) -> None:
    torch.manual_seed(0)
    model, method = nn.Sequential(nn.Linear(3, 3)), LogitAdjustment(tau=2.0, post_hoc=True)
    before = model(logits.float())
    method.prepare(model, COUNTS)
    assert model.train()(logits.float()).equal(before)
    shift = 2.0 * (COUNTS.double() / COUNTS.sum()).log()
    torch.testing.assert_close(model.eval()(logits.float()), before - shift.float())
    assert method.loss(logits, LABELS, COUNTS, 1).equal(CrossEntropy().loss(logits, LABELS, COUNTS, 1))


def test_logit_adjustment_in_the_loss_leaves_predictions_alone(logits: torch.Tensor) -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    before = model.eval()(logits.float())
    LogitAdjustment().prepare(model, COUNTS)
    assert model(logits.float()).equal(before)


def test_oversampling_draws_every_class_as_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    drawn = torch.cat([Oversampling().order(labels, torch.Generator().manual_seed(seed)) for seed in range(10)])
    assert len(drawn) == 10 * len(labels)
    shares = torch.bincount(labels[drawn]) / len(drawn)
    # 10,000 draws: a share's deviation is sqrt(1/3 * 2/3 / 10,000) = 0.0047
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert torch.bincount(drawn[labels[drawn] == 2])[990:].min() > 250, "and each of its samples, 333 times"


def test_other_methods_shuffle_every_sample_once() -> None:
    order = CrossEntropy().order(LABELS, torch.Generator().manual_seed(3))
    assert order.equal(torch.randperm(6, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("method", [ClassBalanced(), Focal(), Ldam(reweight_after=0), LogitAdjustment()])
def test_losses_agree_in_float32_and_float64(method: Method, logits: torch.Tensor) -> None:
    single = method.loss(logits.float(), LABELS, COUNTS, 1)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(method.loss(logits, LABELS, COUNTS, 1).item(), rel=1e-5)
