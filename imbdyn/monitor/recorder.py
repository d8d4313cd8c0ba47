"""From what was read to the trace: windows, sampled steps, evaluations and run.json."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor import ranks, tables
from imbdyn.monitor.cadence import Cadence
from imbdyn.monitor.class_counts import ClassCounts
from imbdyn.monitor.coverage import Coverage
from imbdyn.monitor.deferred import DeferredRows, Numbers
from imbdyn.monitor.evaluation import Evaluation
from imbdyn.monitor.lifetime import Status
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.problems import Problems
from imbdyn.monitor.reading import GradientReading, Gradients
from imbdyn.monitor.residuals import warn_of_divergence, warn_of_residuals
from imbdyn.monitor.step import OptimizerStep
from imbdyn.monitor.window import LogitSums, Window, added
from imbdyn.ops import parameter_norms
from imbdyn.statistics.features import FeatureSummary, cos_class_mean, shift, summarise
from imbdyn.taps import Plan
from imbdyn.trace import TraceWriter

#: The evaluation that others are compared with.
TRAIN_EVAL = "train_eval"


@dataclass
class SampledStep:
    """A sampled step on its way to the trace: its rows share what its gradients turn out to be."""

    number: int
    """Of the step."""
    reading: GradientReading
    plan: Plan
    missed: Callable[[list[str]], None]
    """Told of parameters of which nothing was seen."""
    gradients: Gradients | None = None
    """None until they have come, and of a step that the optimizer has left out."""


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
        learning_rate: Callable[[], float | Tensor],
        class_names: Sequence[str] | None,
        config: Mapping[str, Any] | None,
    ) -> None:
        self.epoch: int | None = None
        self.window = LogitSums(num_classes, ignore_index)
        self._writer = writer
        self._model = model
        self._cadence = cadence
        self._problems = problems
        self._learning_rate = learning_rate
        self._since = 0
        self._coverage = Coverage(model, problems)
        self._class_counts = ClassCounts(num_classes, ignore_index)
        self._rows = DeferredRows(writer, self._put_back)
        self._first_epoch_is_over = False
        self._evaluated: dict[str, FeatureSummary | None] = {}
        self._before_resume: set[str] = set()
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
        if ranks.several():
            problems.warn("ranks", ranks.NOT_COMPARED)

    def begin_epoch(self, epoch: int) -> None:
        """Label the rows to come with `epoch`."""
        self._first_epoch_is_over |= self.epoch is not None and epoch != self.epoch
        self.epoch = epoch

    def count_classes(self, labels: Tensor) -> None:
        """Count the samples of each class in the first epoch: the class counts of the training data."""
        if not self._first_epoch_is_over:
            self._class_counts.add(labels)

    def close_window(
        self, step: int, closed_by: OptimizerStep | None = None, sampled: SampledStep | None = None
    ) -> None:
        """Write the logits of the steps after the last window up to `step`; nothing if there were none.

        Args:
            step: the last one of the window.
            closed_by: that step, where it was sampled.
            sampled: its gradients.
        """
        if step <= self._since:  # below: Ctrl-C came between a step's commit and its being counted
            return
        lap = self._cadence.lap(step - self._since)
        window = Window(self._since, *self.window.take())
        epoch, lr = self.epoch, self._learning_rate()
        batches = None if closed_by is None else (closed_by.batches, closed_by.gradients.batches)

        def write(numbers: Numbers) -> None:
            gradients = None if sampled is None else sampled.gradients
            sums = added(window.before, numbers[0])
            assert sums is not None
            tables.write_logits(
                self._writer,
                tables.Moment(step, window.since, epoch, "train"),
                sums,
                grad_norm=None if gradients is None else float(np.linalg.norm(gradients.grad_norm)),
                lr=float(numbers[1]) if isinstance(lr, Tensor) else lr,
                step_seconds=lap.step_seconds(),
                overhead_seconds=lap.overhead_seconds,
                grad_scale=None if gradients is None else gradients.grad_scale,
                sampled=gradients is not None,
                batches=None if batches is None else batches[0],
                gradient_batches=None if batches is None else batches[1],
            )

        self._rows.add([window.sums, *([lr] if isinstance(lr, Tensor) else [])], write, window)
        self._since = step

    def sampled_step(self, sampled: SampledStep) -> None:
        """Write what the optimizer did to every parameter, and what every class asked for."""
        reading = sampled.reading
        names, tensors = list(reading.parameters), list(reading.parameters.values())
        classifier = self._model.classifier_weight
        rows = names.index(classifier) if classifier in names else None
        norms = parameter_norms(tensors, [None] * len(tensors), reading.previous, rows=rows)
        of_reading = reading.tensors()
        bias = self._bias()

        def write(numbers: Numbers) -> None:
            tensors_P4, rows_K4, *read = numbers[: 2 + len(of_reading)]
            gradients = sampled.gradients = reading.come(read)
            if gradients is None:
                self._cadence.was_skipped()
                return
            sampled.missed(gradients.missing)
            self._note_coverage(sampled.plan, names)
            warn_of_residuals(sampled.number, gradients, reading.reduced_precision, self._problems)
            warn_of_divergence(sampled.number, names, gradients, self._problems)
            tables.write_parameters(self._writer, sampled.number, names, tensors_P4, gradients)
            if gradients.grams is not None:
                tables.write_class_gradients(self._writer, sampled.number, gradients.grams.of_classes(), classifier)
            if rows is not None:
                tables.write_classifier_motion(self._writer, sampled.number, rows_K4, numbers[-1] if bias else None)

        self._rows.add([norms.tensors, norms.rows, *of_reading, *bias], write)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Write an evaluation after `step`."""
        moment = tables.Moment(step, step, self.epoch, evaluation.split)
        sums, _ = evaluation.logits.take()
        tables.write_logits(self._writer, moment, sums.cpu().numpy(), batches=evaluation.batches)
        if evaluation.moments is None or self._model.classifier_weight is None:
            return
        weight = self._model.parameter(self._model.classifier_weight).detach().flatten(1)
        features = summarise(evaluation.moments)
        key = {"step": step, "split": evaluation.split, "layer": self._model.layer}
        train = self._evaluated.get(TRAIN_EVAL) if evaluation.split != TRAIN_EVAL else None
        shifted = None if train is None else shift(features, train)
        tables.write_features(self._writer, key, features, evaluation.collapse(weight), shifted)
        rows, bias = weight.double().cpu().numpy(), self._bias()
        tables.write_class_feature_pairs(self._writer, key, rows, features)
        tables.write_classifier(
            self._writer,
            step,
            evaluation.split,
            np.linalg.norm(rows, axis=1),
            bias[0].cpu().numpy() if bias else None,
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

    def _note_coverage(self, plan: Plan, parameters: list[str]) -> None:
        coverage = self._coverage.note(plan, parameters)
        if coverage is not None:
            self._update_run(coverage=coverage, classifier=self._model.layer)

    def begin(self, step: int) -> None:
        """Go on after `step` with a trace that is resumed; must come before the first rows, and may come again."""
        if self._begun:
            return
        self._begun = True
        if self._writer.resumes:
            if self._writer.resume_after(step) and step == 0:
                self._problems.warn(
                    "resumed from nothing",
                    "resume=True goes on after step 0, since load_state_dict was given no later state: what the trace "
                    "holds of later steps is superseded",
                )
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
        """Write the rows since the last commit: all of them are in the trace when this returns.

        On a GPU they are once they have come; then a later commit writes them.
        """
        self._rows.commit()

    def is_behind(self) -> bool:
        """Whether commits are still on their way."""
        return self._rows.underway > 0

    def drain(self) -> None:
        """Write what is on its way, waiting for it."""
        self._rows.drain()

    def rollback(self) -> None:
        """Forget the rows since the last commit: half of what a step or an evaluation has to say.

        What they said of earlier steps is taken back, and comes with the next commit.
        """
        self._writer.rollback()
        self._rows.rollback()

    def _put_back(self, since: int, sums: NDArray[np.float64] | None) -> None:
        self._since = since
        self.window.put_back(sums)

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
        counts = self._class_counts.known(wait=True)
        return {"epoch": self.epoch, "first_epoch_is_over": self._first_epoch_is_over, "class_counts": counts}

    def load_state_dict(self, step: int, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned after `step`."""
        if self._begun:
            raise ValueError("load_state_dict must come before the first batch")
        self._since = step
        self.epoch = state["epoch"]
        self._first_epoch_is_over = state["first_epoch_is_over"]
        self._class_counts.start_from(state["class_counts"])

    def close(self, status: Status) -> None:
        """End the trace."""
        try:
            self._update_run(**self._state(wait=True))
        finally:  # a GPU that has failed gives no numbers any more
            self._writer.close(status)

    def _state(self, *, wait: bool = False) -> dict[str, Any]:
        """Return the fields of run.json that change while the run goes on."""
        return {
            "class_counts": self._class_counts.known(wait=wait),
            "overhead": self._cadence.record(),
            "problems": self._problems.record(),
        }

    def _update_run(self, **fields: Any) -> None:
        # Contained by itself: rows that wait must not be lost because run.json could not be replaced.
        with self._problems.contained("writing run.json"):
            self._writer.update_run(**fields)

    def _bias(self) -> list[Tensor]:
        """Return the classifier's bias, if it has one."""
        bias = self._model.classifier_bias
        return [] if bias is None else [self._model.parameter(bias).detach().double()]
