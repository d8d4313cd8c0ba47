"""From statistics to rows of the trace: which number goes into which column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from imbdyn.monitor.class_grams import ClassGrams
from imbdyn.monitor.evaluation import Collapse
from imbdyn.monitor.reading import Gradients
from imbdyn.ops import ClassLogits
from imbdyn.statistics import class_gradients
from imbdyn.statistics.features import FeatureSummary, pair_cosines
from imbdyn.statistics.logits import class_rates, overall_rates
from imbdyn.statistics.weights import weight_motion
from imbdyn.trace import Names, Nullable, TraceWriter

Floats = NDArray[np.float64]

#: Up to so many classes the pairs of every parameter are kept; above, those of '*' and of the classifier.
PAIRS_OF_ALL = 20
#: Up to so many classes an evaluation has a row for each two of them.
FEATURE_PAIRS_OF = 100


@dataclass(frozen=True)
class Moment:
    """Where in the training a row belongs."""

    step: int
    since_step: int
    epoch: int | None
    split: str

    def key(self) -> dict[str, Any]:
        """Return the columns that `steps` and `classes` share."""
        return {"step": self.step, "since_step": self.since_step, "epoch": self.epoch, "split": self.split}


def absent(values: npt.ArrayLike) -> Nullable:
    """Say what is not defined (NaN), so that it becomes null in the trace."""
    values = np.asarray(values, dtype=np.float64)
    return Nullable(values, np.isfinite(values))


def write_logits(writer: TraceWriter, moment: Moment, sums: Floats, **step_columns: Any) -> None:
    """Write the sums [8, C] of a window or an evaluation to `steps` and `classes`."""
    per_class = ClassLogits(*sums)
    count = np.asarray(per_class.count)
    rates, overall = class_rates(sums), overall_rates(sums)
    writer.append(
        "steps",
        **moment.key(),
        count=int(count.sum()),
        loss=_or_null(overall.loss, count.sum() > 0),
        accuracy=_or_null(overall.accuracy, count.sum() > 0),
        balanced_accuracy=_or_null(overall.balanced_accuracy, count.sum() > 0),
        **step_columns,
    )
    if count.sum() == 0:
        return
    present, predicted = count > 0, np.asarray(per_class.predicted) > 0
    writer.append(
        "classes",
        **moment.key(),
        class_id=np.arange(len(count)),
        count=count.astype(np.int64),
        loss=Nullable(rates.loss, present),
        accuracy=Nullable(rates.accuracy, present),
        precision=Nullable(rates.precision, predicted),
        margin=Nullable(rates.margin, present),
        confidence=Nullable(rates.confidence, present),
        predicted=np.asarray(per_class.predicted).astype(np.int64),
        positive_grad=per_class.positive_grad,
        negative_grad=per_class.negative_grad,
    )


def write_class_gradients(writer: TraceWriter, step: int, grams: ClassGrams, classifier: str | None) -> None:
    """Write every covered parameter's class gradients, and those of all of them together as '*'."""
    names = [*grams.parameters, "*"]
    gram = np.concatenate([grams.gram, grams.gram.sum(0, keepdims=True)])
    sample_norm_sq = np.concatenate([grams.sample_norm_sq, grams.sample_norm_sq.sum(0, keepdims=True)])
    numbers = class_gradients.describe(gram, sample_norm_sq, grams.count)
    classes = len(grams.class_ids)
    # NaN where the gradient is NaN was measured; else the samples were not told apart
    known = np.isnan(numbers.grad_norm) | ~np.isnan(sample_norm_sq)
    writer.append(
        "class_gradients",
        step=step,
        parameter=_repeated(tuple(names), classes),
        class_id=np.tile(grams.class_ids, len(names)),
        count=np.tile(grams.count.astype(np.int64), len(names)),
        grad_norm=numbers.grad_norm.ravel(),
        grad_cos_total=absent(numbers.grad_cos_total.ravel()),
        grad_share=absent(numbers.grad_share.ravel()),
        sample_norm_sq=Nullable(sample_norm_sq.ravel(), known.ravel()),
        grad_noise=absent(numbers.grad_noise.ravel()),
    )
    kept = [i for i, name in enumerate(names) if classes <= PAIRS_OF_ALL or name in ("*", classifier)]
    first, second = np.triu_indices(classes, 1)
    cos = class_gradients.cosines(gram[kept])[:, first, second]
    writer.append(
        "class_gradient_pairs",
        step=step,
        parameter=_repeated(tuple(names[i] for i in kept), len(first)),
        class_a=np.tile(grams.class_ids[first], len(kept)),
        class_b=np.tile(grams.class_ids[second], len(kept)),
        grad_cos=absent(cos.ravel()),
    )


def write_parameters(writer: TraceWriter, step: int, names: list[str], norms_P4: Floats, gradients: Gradients) -> None:
    """Write how the optimizer moved every parameter, from its `parameter_norms` after the step."""
    weight_norm, _, update_norm, dot = norms_P4.T
    motion = weight_motion(weight_norm, update_norm, dot)
    writer.append(
        "parameters",
        step=step,
        parameter=names,
        weight_norm=weight_norm,
        grad_norm=gradients.grad_norm,
        update_norm=update_norm,
        update_ratio=absent(motion.update_ratio),
        cos_weight_update=absent(motion.cos_weight_update),
        rotation=absent(motion.rotation),
        residual=np.ma.masked_array(
            [gradients.residual.get(name, 0.0) for name in names], [name not in gradients.residual for name in names]
        ),
    )


def write_classifier_motion(writer: TraceWriter, step: int, norms_K4: Floats, bias: Floats | None) -> None:
    """Write how the optimizer moved every row of the classifier, from their `parameter_norms` after the step."""
    row_norm, _, update_norm, dot = norms_K4.T
    rotation = absent(weight_motion(row_norm, update_norm, dot).rotation)
    write_classifier(writer, step, "train", row_norm, bias, row_update_norm=update_norm, row_rotation=rotation)


def write_classifier(
    writer: TraceWriter, step: int, split: str, row_norm: Floats, bias: Floats | None, **columns: Any
) -> None:
    """Write a row for each class's row of the classifier."""
    class_id = np.arange(len(row_norm))
    writer.append("classifier", step=step, split=split, class_id=class_id, row_norm=row_norm, bias=bias, **columns)


def write_features(
    writer: TraceWriter,
    key: dict[str, Any],
    features: FeatureSummary,
    collapse: Collapse,
    train_test_shift: Floats | None,
) -> None:
    """Write the features of an evaluation to `features`, and of every class that is present to `class_features`."""
    geometry = {name: absent([value]) for name, value in collapse.geometry._asdict().items()}
    writer.append(
        "features",
        **key,
        count=[int(features.count.sum())],
        nc1=absent([collapse.nc1]),
        nc1_sample=absent([collapse.nc1_sample]),
        **geometry,
        nc4=absent([collapse.nc4]),
    )
    present = np.flatnonzero(features.count)
    writer.append(
        "class_features",
        **key,
        class_id=present,
        count=features.count[present],
        mean_norm=features.mean_norm[present],
        centred_norm=features.centred_norm[present],
        within_var=absent(features.within_var[present]),
        nc1=absent(collapse.nc1_of_class[present]),
        cos_global=absent(features.cos_global[present]),
        train_test_shift=None if train_test_shift is None else absent(train_test_shift[present]),
    )


def write_class_feature_pairs(writer: TraceWriter, key: dict[str, Any], rows: Floats, features: FeatureSummary) -> None:
    """Write how the classifier's rows [C, D] and the class means of each two classes lie to each other."""
    if len(rows) > FEATURE_PAIRS_OF:
        return
    first, second = np.triu_indices(len(rows), 1)
    of_rows, of_means = pair_cosines(rows, features)
    writer.append(
        "class_feature_pairs",
        **key,
        class_a=first,
        class_b=second,
        row_cos=absent(of_rows[first, second]),
        mean_cos=absent(of_means[first, second]),
    )


@lru_cache(maxsize=8)  # the names and, mostly, the number of classes are those of the step before
def _repeated(names: tuple[str, ...], times: int) -> Names:
    return Names.repeat(names, times)


def _or_null(value: float, defined: bool) -> float | None:
    return value if defined else None
