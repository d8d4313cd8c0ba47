"""From what was read to the trace: windows, sampled steps, evaluations and run.json."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor import tables
from imbdyn.monitor.cadence import Cadence
from imbdyn.monitor.evaluation import Evaluation
from imbdyn.monitor.lifetime import Status
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.problems import Problems
from imbdyn.monitor.step import GradientReading, OptimizerStep
from imbdyn.monitor.window import LogitSums
from imbdyn.ops import parameter_norms
from imbdyn.statistics.features import FeatureSummary, cos_class_mean, shift, summarise
from imbdyn.statistics.weights import weight_motion
from imbdyn.taps import Plan
from imbdyn.trace import TraceWriter

#: The evaluation that others are compared with.
TRAIN_EVAL = "train_eval"


@dataclass(frozen=True)
class _Uncommitted:
    """A window that began after `step`, and was appended when the writer had taken so many commits."""

    commits: int
    step: int
    sums: NDArray[np.float64]


class Recorder:
    """Owns the writer; every row of the trace is written here, by way of `tables`."""

    def __init__(
        self,
        writer: TraceWriter,
        model: WatchedModel,
        cadence: Cadence,
        problems: Problems,
        *,
        num_classes: int,
        ignore_index: int,
        learning_rate: Callable[[], float],
        class_names: Sequence[str] | None,
        config: Mapping[str, Any] | None,
    ) -> None:
        self.epoch: int | None = None
        self.window = LogitSums(num_classes, ignore_index)
        self._writer = writer
        self._model = model
        self._cadence = cadence
        self._problems = problems
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._learning_rate = learning_rate
        self._since = 0
        self._with_gradient: set[str] = set()
        self._coverage_known: tuple[int, ...] = ()
        self._class_counts = np.zeros(num_classes, dtype=np.int64)
        self._uncounted: list[Tensor] = []
        self._first_epoch_is_over = False
        self._evaluated: dict[str, FeatureSummary | None] = {}
        self._before_resume: set[str] = set()
        self._uncommitted_window: _Uncommitted | None = None
        self._begun = False
        writer.update_run(
            num_classes=num_classes,
            class_names=list(class_names) if class_names is not None else [str(c) for c in range(num_classes)],
            class_counts=None,
            config=dict(config) if config is not None else None,
            seed=torch.initial_seed(),
            versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            threads=torch.get_num_threads(),
            mixing_layers=model.mixing_layers(),
            classifier=model.layer,
            coverage=None,
            overhead=cadence.record(),
            problems={},
        )

    def begin_epoch(self, epoch: int) -> None:
        """Label the rows to come with `epoch`."""
        self._first_epoch_is_over |= self.epoch is not None and epoch != self.epoch
        self.epoch = epoch

    def count_classes(self, labels: Tensor) -> None:
        """Count the samples of each class in the first epoch: the class counts of the training data."""
        if not self._first_epoch_is_over:
            self._uncounted.append(labels.clone())  # counted when run.json is written: a call a batch would be dear

    def close_window(self, step: int, closed_by: OptimizerStep | None = None) -> None:
        """Write the logits of the steps after the last window up to `step`; nothing if there were none."""
        if step <= self._since:  # below: Ctrl-C came between a step's commit and its being counted
            return
        step_seconds, overhead_seconds = self._cadence.lap(step - self._since)
        since, sums = self._since, self.window.take()
        self._uncommitted_window = _Uncommitted(self._writer.commits, since, sums)
        reading = None if closed_by is None else closed_by.reading
        tables.write_logits(
            self._writer,
            tables.Moment(step, since, self.epoch, "train"),
            sums,
            grad_norm=None if reading is None else float(np.linalg.norm(reading.grad_norm)),
            lr=self._learning_rate(),
            step_seconds=step_seconds,
            overhead_seconds=overhead_seconds,
            grad_scale=None if reading is None else reading.grad_scale,
            sampled=reading is not None,
            batches=None if closed_by is None else closed_by.batches,
            gradient_batches=None if closed_by is None else closed_by.gradients.batches,
        )
        self._since = step

    def sampled_step(self, step: int, reading: GradientReading) -> None:
        """Write what the optimizer did to every parameter, and what every class asked for."""
        names, tensors = list(reading.parameters), list(reading.parameters.values())
        classifier = self._model.classifier_weight
        rows = names.index(classifier) if classifier in names else None
        norms = parameter_norms(tensors, [None] * len(tensors), reading.previous, rows=rows)
        weight_norm, _, update_norm, dot = norms.tensors.T.cpu().numpy()
        motion = weight_motion(weight_norm, update_norm, dot)
        self._writer.append(
            "parameters",
            step=step,
            parameter=names,
            weight_norm=weight_norm,
            grad_norm=reading.grad_norm,
            update_norm=update_norm,
            update_ratio=tables.absent(motion.update_ratio),
            cos_weight_update=tables.absent(motion.cos_weight_update),
            rotation=tables.absent(motion.rotation),
            residual=np.ma.masked_array(
                [reading.residual.get(name, 0.0) for name in names], [name not in reading.residual for name in names]
            ),
        )
        if reading.grams is not None:
            tables.write_class_gradients(self._writer, step, reading.grams.of_classes(), classifier)
        if rows is not None:
            row_norm, _, row_update, row_dot = norms.rows.T.cpu().numpy()
            self._classifier_rows(
                step,
                "train",
                row_norm=row_norm,
                row_update_norm=row_update,
                row_rotation=tables.absent(weight_motion(row_norm, row_update, row_dot).rotation),
            )

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Write an evaluation after `step`."""
        moment = tables.Moment(step, step, self.epoch, evaluation.split)
        tables.write_logits(self._writer, moment, evaluation.logits.take(), batches=evaluation.batches)
        if evaluation.moments is None or self._model.classifier_weight is None:
            return
        weight = self._model.parameter(self._model.classifier_weight).detach().flatten(1)
        features = summarise(evaluation.moments)
        key = {"step": step, "split": evaluation.split, "layer": self._model.layer}
        train = self._evaluated.get(TRAIN_EVAL) if evaluation.split != TRAIN_EVAL else None
        shifted = None if train is None else shift(features, train)
        tables.write_features(self._writer, key, features, evaluation.collapse(weight), shifted)
        rows = weight.double().cpu().numpy()
        tables.write_class_feature_pairs(self._writer, key, rows, features)
        self._classifier_rows(
            step,
            evaluation.split,
            row_norm=np.linalg.norm(rows, axis=1),
            cos_class_mean=tables.absent(cos_class_mean(rows, features)),
        )
        self._evaluated[evaluation.split] = features

    def begin_evaluation(self, split: str) -> bool:
        """Tell whether this split is to be read now: once after a step, since a second time would double its key."""
        if split in self._before_resume:
            return False
        if split in self._evaluated:
            self._problems.warn(
                "repeated evaluation",
                f"evaluate({split!r}) came twice after the same optimizer step; only the first is in the trace",
            )
            return False
        self._evaluated[split] = None
        return True

    def weights_moved(self) -> None:
        """Forget what was measured of the weights before a step."""
        self._evaluated.clear()
        self._before_resume.clear()

    def note_coverage(self, plan: Plan, parameters: Iterable[str]) -> None:
        """Write to run.json, when it has changed, which parameters are read and how; warn once if not all are.

        Args:
            plan: what is known of the model.
            parameters: those that have a gradient in this step. The share is of all that ever had one: what the model
                does not use is not to be covered.
        """
        self._with_gradient.update(parameters)
        known = (plan.complete, len(plan.rule_of), len(plan.refused), len(self._with_gradient))
        if known == self._coverage_known:
            return
        self._coverage_known = known
        sizes = {name: p.numel() for name, p in self._model.trainable().items()}
        covered = self._with_gradient.intersection(plan.covered())
        reason = {
            name: plan.why_not(name) if name in self._with_gradient else "no gradient comes to it"
            for name in sizes
            if name not in covered
        }
        used = sum(size for name, size in sizes.items() if name in self._with_gradient)
        share = sum(size for name, size in sizes.items() if name in covered) / max(1, used)
        self._update_run(
            coverage={
                "share": share,
                "parameters": {
                    name: {"covered": name in covered, "rule": plan.rule_of.get(name), "reason": reason.get(name)}
                    for name in sizes
                },
            },
            classifier=self._model.layer,
        )
        missing = [f"{name} ({why})" for name, why in reason.items() if name in self._with_gradient]
        if missing and plan.complete:  # what is still being learned may be covered yet
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            self._problems.warn(
                "coverage",
                f"class gradients cover {share:.1%} of the trainable parameters; not covered: "
                f"{', '.join(missing[:3])}{more} (run.json lists all)",
            )

    def begin(self, step: int) -> None:
        """Go on after `step` with a trace that is resumed; must come before the first rows, and may come again."""
        if self._begun:
            return
        self._begun = True
        if self._writer.resumes:
            self._writer.resume_after(step)
            # What was measured of the weights after `step` is in the trace, and would double its key.
            self._evaluated = dict.fromkeys(self._writer.rows_at("steps", step)["split"].unique().to_pylist())
            self._evaluated.pop("train", None)
            self._before_resume = set(self._evaluated)

    def has_room(self) -> bool:
        """Whether the disk keeps up; warn and count if it does not, and class gradients are to be left out."""
        pressure = self._writer.pressure
        if pressure is not None:
            self._problems.warn(
                "slow disk",
                f"{pressure}; until it keeps up, steps that were to be sampled are not, and windows are longer "
                "(run.json counts them)",
            )
        return pressure is None

    def commit(self) -> None:
        """Write the rows since the last commit: all of them are in the trace when this returns."""
        self._writer.commit()

    def rollback(self) -> None:
        """Forget the rows since the last commit: half of what a step or an evaluation has to say.

        What they said of earlier steps is taken back, and comes with the next commit.
        """
        self._writer.rollback()
        window, self._uncommitted_window = self._uncommitted_window, None
        if window is not None and window.commits == self._writer.commits:
            self._since = window.step
            self.window.put_back(window.sums)

    def tell(self, step: int) -> None:
        """When it is time, close the window at `step` and bring run.json up to date.

        So that little dies with the process, and who looks on sees how the run goes, however rare sampled steps are.
        """
        if self._writer.flush_due():
            self.close_window(step)
            self._update_run(**self._state())

    def flush(self) -> None:
        """Write what waits, and seal it."""
        self._writer.flush()

    def sync(self) -> None:
        """Put on disk what was committed."""
        self._writer.sync()

    def state_dict(self) -> dict[str, Any]:
        """Return what is to be known to go on."""
        counts = self._state()["class_counts"]
        return {"epoch": self.epoch, "first_epoch_is_over": self._first_epoch_is_over, "class_counts": counts}

    def load_state_dict(self, step: int, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned after `step`."""
        if self._begun:
            raise ValueError("load_state_dict must come before the first batch")
        self._since = step
        self.epoch = state["epoch"]
        self._first_epoch_is_over = state["first_epoch_is_over"]
        self._class_counts = np.asarray(state["class_counts"], dtype=np.int64)

    def close(self, status: Status) -> None:
        """End the trace."""
        self._update_run(**self._state())
        self._writer.close(status)

    def _state(self) -> dict[str, Any]:
        """Return the fields of run.json that change while the run goes on."""
        if self._uncounted:
            labels = torch.cat(self._uncounted)
            self._uncounted = []
            counted = labels[(labels >= 0) & (labels < self._num_classes) & (labels != self._ignore_index)]
            self._class_counts += counted.bincount(minlength=self._num_classes).cpu().numpy()
        return {
            "class_counts": self._class_counts.tolist(),
            "overhead": self._cadence.record(),
            "problems": self._problems.record(),
        }

    def _update_run(self, **fields: Any) -> None:
        # Contained by itself: rows that wait must not be lost because run.json could not be replaced.
        with self._problems.contained("writing run.json"):
            self._writer.update_run(**fields)

    def _classifier_rows(self, step: int, split: str, **columns: Any) -> None:
        bias = self._model.classifier_bias
        values = None if bias is None else self._model.parameter(bias).detach().double().cpu().numpy()
        self._writer.append(
            "classifier", step=step, split=split, class_id=np.arange(self._num_classes), bias=values, **columns
        )
