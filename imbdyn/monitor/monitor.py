"""`Monitor`: what a user puts into a training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imbdyn.monitor import lifetime, outputs, ranks
from imbdyn.monitor.arguments import check_arguments
from imbdyn.monitor.batch import Batch, refuse_compiled
from imbdyn.monitor.cadence import Cadence
from imbdyn.monitor.clocks import clock_of
from imbdyn.monitor.evaluation import Evaluation
from imbdyn.monitor.gradients import StepGradients
from imbdyn.monitor.labels import check_form, check_values
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.optimizer_steps import StepHooks, UnseenSteps
from imbdyn.monitor.problems import Problems
from imbdyn.monitor.reading import GradientReading
from imbdyn.monitor.recorder import Recorder, SampledStep
from imbdyn.monitor.step import OptimizerStep
from imbdyn.monitor.stopwatch import Stopwatch
from imbdyn.monitor.watching import Watching
from imbdyn.monitor.weights_before import WeightsBefore
from imbdyn.ops._checks import IGNORE_INDEX
from imbdyn.trace import TraceWriter

#: Steps between two looks at whether run.json is to be brought up to date; sampled steps always look.
_TELL_EVERY = 16
#: What `state_dict` returns has this version.
_STATE_VERSION = 1


class Monitor:
    """Measures what each class does to a network while it trains, and writes it to a trace.

        monitor = imbdyn.Monitor(model, optimizer, num_classes=10, out="runs/a")
        for x, y in loader:
            with monitor.batch(y):
                loss = criterion(model(x), y)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        monitor.close()

    Training is not changed: after any number of steps the weights are bit-identical to those without it (CPU). The
    logits are read on every step (loss, accuracy, margins by class), or on fewer where that alone would take half the
    budget; the class gradients on sampled steps.

    Args:
        model: any module whose output is logits [N, C], or has them as `.logits`. DistributedDataParallel is passed
            over: names are those of the module in it, and the class gradients are those of this rank's own batches.
        optimizer: its steps, with a closure or without, are the steps of the trace: the one whose step() is called, not
            a wrapper around it. LBFGS, which runs the model several times inside a step, is refused.
        num_classes: C, at least 2.
        out: folder of the trace; must not exist or be empty, unless `force`. Or a URI (s3://, gs://, hdfs://): what is
            not sent yet waits on this machine, in the folder that run.json names under "staging".
        budget: share of training time that the instrument may take; it chooses how many steps it samples by that.
        interval: sample every k-th step instead (and the first), whatever it costs.
        class_names: C names, for people.
        classifier: name in `model.named_modules()` of the last linear layer, when it is not the last linear function
            with `num_classes` outputs.
        logits: function from the model's output to logits [N, C].
        ignore_index: label of samples that count nowhere.
        on_error: what a failure of the instrument itself does: "warn" (once a kind, training goes on) or "raise".
        force: replace a trace that stands in `out`.
        resume: go on with the trace that stands in `out`, if there is one, after the step of the state given to
            `load_state_dict`, or after step 0 (with a warning). What it holds of later steps is superseded: readers see
            one history.
        config: anything JSON can hold; stored in run.json.

    Raises:
        TypeError: for an argument of another kind.
        ValueError: for arguments that do not fit the model, or a model that has a Monitor already.
        FileExistsError: if `out` exists and `force` is not set.
        OSError: if `out` cannot be written, or its store does not answer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        num_classes: int,
        out: str | os.PathLike[str],
        *,
        budget: float = 0.01,
        interval: int | None = None,
        class_names: Sequence[str] | None = None,
        classifier: str | None = None,
        logits: Callable[[Any], Tensor] | None = None,
        ignore_index: int = IGNORE_INDEX,
        on_error: Literal["warn", "raise"] = "warn",
        force: bool = False,
        resume: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        check_arguments(model, optimizer, num_classes, out, class_names, config)
        model = ranks.own_module(model)
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._model = WatchedModel(model, num_classes, classifier, logits)
        self._batches_before: int | None = None
        self._before = WeightsBefore()
        self._problems = Problems(on_error)
        self._watching = Watching(self._model, self._problems)
        self._cadence = Cadence(budget, interval)
        self._stopwatch = Stopwatch(self._cadence.spend)
        self._batch: Batch | None = None
        self._step: OptimizerStep | None = None
        self._unseen = UnseenSteps(optimizer)
        self._evaluation: Evaluation | None = None
        self._closed = False
        lifetime.claim(model)
        self._hooks: list[Callable[[], None]] = []
        try:
            self._hooks += [outputs.follow(model, self)]
            self._step_hooks = StepHooks(
                optimizer,
                weights=self._weights_if_sampled,
                gradients=partial(self._read_gradients, optimizer),
                done=self._after_step,
            )
            self._hooks += [self._step_hooks.remove]
            self._recorder = Recorder(
                TraceWriter(out, force=force, resume=resume, rank=ranks.rank(), run_id=ranks.run_id()),
                self._model,
                self._cadence,
                self._problems,
                num_classes=num_classes,
                ignore_index=ignore_index,
                learning_rate=partial(_learning_rate, optimizer),
                class_names=class_names,
                config=config,
            )
        except BaseException:
            self._end_hooks()
            raise
        lifetime.opened(self)

    @property
    def epoch(self) -> int | None:
        """The epoch that rows are labelled with; None until it is set. A window never reaches across epochs."""
        return self._recorder.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if not isinstance(epoch, int):
            raise TypeError(f"monitor.epoch must be an int, got {epoch!r}")
        with self._stopwatch:
            self._close_window()
            self._recorder.begin_epoch(epoch)

    def batch(self, labels: Tensor) -> AbstractContextManager[None]:
        """Return the context in which one (micro-)batch with these labels runs: forward and, in training, backward.

        Args:
            labels: int64 [N], each in 0..num_classes-1 or `ignore_index`, in the order of the model's output. Or soft,
                floating point [N, C], as mixup, CutMix and distillation have them: not negative, and not all zero in a
                row. Of each sample's gradient every class then gets the share of its weight in the row; loss, accuracy
                and the other rates of a class, and its counts, are those of the samples whose heaviest class it is.
                They may be on the CPU while the model is on a GPU.

        Raises:
            TypeError: if `labels` is neither of these.
            ValueError: if a label is no class, or a row no shares (the message names the row). Labels on a GPU are not
                looked at, since that would wait for it, nor are those of a step that is not read.
            RuntimeError: inside of a function that torch.compile compiles; around its call all is well.
        """
        if torch.compiler.is_compiling():
            refuse_compiled()
        if self._closed:
            raise ValueError("this Monitor is closed")
        if self._batch is not None:
            raise ValueError("monitor.batch(...) inside another monitor.batch(...): leave the first one before")
        self._step_hooks.batch_begins()
        with self._stopwatch:
            check_form(labels, self._num_classes)
            if not self._cadence.began:
                self._cadence.start(clock_of(self._model.device))
            with self._problems.contained("resuming the trace"):
                self._recorder.begin(self._cadence.steps)
            if self._evaluation is not None:
                check_values(labels, self._num_classes, self._ignore_index)
                watch = self._model.feature_watch()
                return Batch(self, labels, self._model.device, wants_logits=True, features=watch)
            if torch.is_grad_enabled():
                return self._training_batch(labels)
            self._problems.warn(
                "batch without gradients",
                "monitor.batch without gradients outside of monitor.evaluate(...): it is not counted",
            )
            return Batch(self, labels, self._model.device, wants_logits=False)

    @contextmanager
    def evaluate(self, split: str) -> Iterator[None]:
        """Return the context of one evaluation: every `monitor.batch` in it is read in full, no step is counted.

        Eval mode and no_grad are the loop's affair. An evaluation of the training data is called "train_eval"; the
        features of later ones after the same step are compared with it.

        Raises:
            ValueError: for the name "train", which means the training windows, or inside another evaluation.
        """
        if not isinstance(split, str):
            raise TypeError(f"the name of an evaluation must be a str, got {split!r}")
        if split == "train":
            raise ValueError('"train" names the training windows; call an evaluation of training data "train_eval"')
        if self._evaluation is not None or self._batch is not None:
            raise ValueError(f"monitor.evaluate({split!r}) must not start inside another evaluation or batch")
        with self._stopwatch:
            with self._problems.contained("resuming the trace"):
                self._recorder.begin(self._cadence.steps)
            self._close_window()
            wanted = self._recorder.begin_evaluation(split)
            evaluation = self._evaluation = Evaluation(split, self._num_classes, self._ignore_index)
        try:
            yield
        except BaseException:
            wanted = False  # half an evaluation would pass for a whole one
            raise
        finally:
            self._evaluation = None
            with self._stopwatch, self._problems.contained("recording an evaluation"):
                if wanted and evaluation.batches:
                    self._drain()
                    with self._committing():
                        self._recorder.evaluation(self._cadence.steps, evaluation)
            self._cadence.skip()

    def close(self, status: Literal["finished", "interrupted", "failed"] = "finished") -> None:
        """Write what is left, remove every hook and end the trace; later calls do nothing."""
        if self._closed:
            return
        self._closed = True
        self._end_hooks()
        try:
            with self._stopwatch:
                self._close_window()
                self._drain()
                with self._problems.contained("writing the trace"):
                    self._recorder.flush()  # so that what it takes is in the record
        finally:
            with self._problems.contained("writing the trace"):
                self._recorder.close(status)

    def _end_hooks(self) -> None:
        for end in self._hooks:
            end()
        lifetime.closed(self, self._model.module)

    def state_dict(self) -> dict[str, Any]:
        """Return what belongs into a checkpoint beside the model's and the optimizer's: plain numbers, lists and names.

        It ends the window, and puts the trace on disk, so that no checkpoint is ahead of its trace.

        Raises:
            ValueError: between the batches of a step, whose gradients no checkpoint holds.
        """
        if self._batch is not None or self._step is not None or self._evaluation is not None:
            raise ValueError("state_dict must come after an optimizer step, outside of batches and evaluations")
        with self._stopwatch:
            self._close_window()
            self._drain()
            state = {"version": _STATE_VERSION, "step": self._cadence.steps, "overhead": self._cadence.record()}
            with self._problems.contained("writing the trace"):
                self._recorder.sync()
            return state | self._recorder.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the step of a checkpoint; must come before the first batch.

        Raises:
            ValueError: after the first batch, for a state of a newer imbdyn, or for anything but a state.
        """
        if not isinstance(state, Mapping) or not {"version", "step", "overhead"} <= state.keys():
            raise ValueError(
                "load_state_dict takes what Monitor.state_dict() returned, not the checkpoint that holds it"
            )
        if state["version"] > _STATE_VERSION:
            raise ValueError(f"the state has version {state['version']}, this imbdyn reads up to {_STATE_VERSION}")
        self._recorder.load_state_dict(state["step"], state)
        self._cadence.go_on(state["step"], state["overhead"])

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(lifetime.status_of(error))

    def enter_batch(self, batch: Batch) -> None:
        """Read what comes as part of `batch` (called by the context that `batch` returns)."""
        self._batch = batch
        if batch.step is not None:
            with self._stopwatch:
                batch.step.batches += 1
                self._recorder.count_classes(batch.given)
                if batch.shares is not None and batch.modes is not None:
                    batch.watched = self._watching.begin(batch.step, batch.shares, batch.modes)

    def leave_batch(self, batch: Batch, *, completed: bool) -> None:
        """Take over what a batch collected (called by the context that `batch` returns)."""
        self._batch = None
        if batch.watched is not None:
            self._watching.end()
        if completed:
            if batch.wants_logits:
                self._problems.warn("no forward pass", outputs.why_unseen(self._model.module))
            self._take_over(batch)
        if batch.watched is not None:
            self._cadence.spend(batch.watched.seconds)
            if not completed and batch.step is not None:
                batch.step.gradients.drop(batch.watched)
            with self._stopwatch:
                self._model.remember_gradients()

    def _take_over(self, batch: Batch) -> None:
        """Count what a batch has read. What was read is counted once: an optimizer step may come before its end."""
        logits, batch.logits = batch.logits, None
        with self._reading("a batch"):
            if batch.features is not None:
                self._model.learn_classifier(batch.features)
            if self._evaluation is not None:
                self._evaluation.add(batch.labels, logits, batch.features)
                return
            if logits is not None:
                self._recorder.window.add(logits, batch.labels)

    def _training_batch(self, labels: Tensor) -> Batch:
        step = self._step
        if step is not None and self._unseen.are_there():
            self._problems.warn("no step", self._unseen.MESSAGE)
        if step is not None and step.gradients.began and self._model.gradients_were_dropped():
            step.gradients.release()
            step = None  # its gradients were thrown away, as a GradScaler does that finds an inf: no step came of it
        if step is None:
            sampled = self._cadence.gradients_due() and self._recorder.has_room()
            step = self._step = OptimizerStep(
                StepGradients(
                    self._num_classes,
                    self._ignore_index,
                    self._watching.plan,
                    at_once=None if self._batches_before is None else self._batches_before == 1,
                ),
                sampled=sampled,
                read_logits=sampled or self._cadence.logits_due(),
            )
        if step.read_logits:
            check_values(labels, self._num_classes, self._ignore_index)
        watched = step.sampled and step.gradients.has_room()
        features = self._model.feature_watch() if watched and not self._model.knows_classifier() else None
        return Batch(
            self,
            labels,
            self._model.device,
            wants_logits=step.read_logits,
            step=step,
            watched=watched,
            features=features,
        )

    def run_compiled(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a compiled forward pass (called in its place)."""
        if self._batch is None or self._batch.watched is None:
            return call(*args, **kwargs)
        return self._watching.run_compiled(call, args, kwargs, self._batch.watched)

    def after_forward(self, output: Any) -> None:
        """Remember the logits of a forward pass (called by the hook on the model)."""
        batch = self._batch
        if batch is None or batch.thread != get_ident():
            return
        if batch.wants_logits:
            with self._stopwatch:
                # a wrong output is the user's mistake: it raises
                batch.logits = self._model.logits_of(output, batch.labels).detach()
                batch.wants_logits = False
                if self._evaluation is None:
                    self._recorder.window.follow(batch.logits)
        if batch.watched is not None and not self._watching.plan.complete:
            with (
                self._stopwatch,
                self._problems.contained("learning the model"),
                torch._C.DisableTorchFunction(),
                torch._C._DisableAutocast(),
            ):
                self._watching.after_forward(output, batch.watched)

    def _weights_if_sampled(self) -> Iterable[Tensor]:
        """Return the weights if the step that begins now is sampled, and none if not."""
        with self._stopwatch:
            # if this is not known yet, its batches come in a closure
            sampled = self._cadence.gradients_due() if self._step is None else self._step.sampled
            return self._model.watched().values() if sampled else ()

    def _read_gradients(self, optimizer: torch.optim.Optimizer, of_step: bool) -> None:
        """Read the gradients, if they are those that the step is about to apply; else forget what was read of it."""
        if self._batch is not None:
            self._take_over(self._batch)
        step = self._step
        if step is not None and step.sampled:
            step.batches_read = step.batches if of_step else None
            if of_step:
                with self._reading("the gradients"):
                    step.read_gradients(self._model, optimizer, self._watching.plan, self._before)

    def _after_step(self) -> None:
        step, self._step = self._step, None
        self._unseen.seen()
        self._batches_before = None if step is None else step.batches
        try:
            with self._stopwatch, self._problems.contained("recording a step"):
                self._record_step(step)
                if step is None or step.sampled or self._cadence.steps % _TELL_EVERY == 0:
                    self._recorder.tell(self._cadence.steps + 1)
                self._recorder.commit()
        except BaseException:
            self._recorder.rollback()
            raise
        finally:
            if step is not None:
                step.gradients.release()
            self._cadence.step_done(
                sampled=step is not None and step.reading is not None, logits=step is not None and step.read_logits
            )

    def _record_step(self, step: OptimizerStep | None) -> None:
        self._recorder.weights_moved()
        if step is None:
            self._problems.warn(
                "step without batch",
                f"optimizer step {self._cadence.steps + 1} came without a monitor.batch(labels) before it: "
                "wrap forward and backward in `with monitor.batch(labels):`",
            )
        elif step.sampled and step.batches_read != step.batches:
            step.reading = None  # of other gradients than the step's
            self._problems.warn(
                "closure",
                "this optimizer's step(closure) moves the weights before its closure has run, or runs it again, or not "
                "at all: which gradients it applies cannot be told, and they are not read",
            )
        elif step.reading is not None:
            with self._reading("a step"):
                self._record(self._cadence.steps + 1, step, step.reading)

    def _record(self, number: int, step: OptimizerStep, reading: GradientReading) -> None:
        plan, missed = self._watching.plan, partial(self._watching.missed, self._watching.in_graph)
        sampled = SampledStep(number, reading, plan, missed)
        self._recorder.sampled_step(sampled)
        self._recorder.close_window(number, step, sampled)

    def _close_window(self) -> None:
        with self._problems.contained("closing a window"), self._committing():
            self._recorder.close_window(self._cadence.steps)

    def _drain(self) -> None:
        """Write what is still on its way from a GPU, waiting for it."""
        while self._recorder.is_behind():
            with self._problems.contained("writing the trace"):
                self._recorder.drain()

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Commit the rows of the block; if it is left by an exception, forget them."""
        try:
            yield
        except BaseException:
            self._recorder.rollback()
            raise
        self._recorder.commit()

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Time a part of the instrument, contain its failure, and keep it out of modes and an autocast that are on."""
        with (
            self._stopwatch,
            self._problems.contained(f"reading {what}"),
            torch._C.DisableTorchFunction(),
            torch._C._DisableAutocast(),
            torch.no_grad(),
        ):
            yield


def _learning_rate(optimizer: torch.optim.Optimizer) -> float | Tensor:
    """Return the learning rate; one on a GPU as it will be when the work that is queued now is done."""
    lr = optimizer.param_groups[0]["lr"]
    return lr if isinstance(lr, Tensor) and not lr.is_cpu else float(lr)
