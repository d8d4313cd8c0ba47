"""A user's mistake gets one plain sentence; a failure of the instrument never stops training."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import torch
import torch.nn.functional as F
from forked_python import ForkedPython
from loops import CLASSES, train
from networks import Mlp
from torch import Tensor, nn

from imbdyn import ImbdynWarning, Monitor, open_trace
from imbdyn.trace import TraceWriter
from imbdyn.trace._journal import Segment


@pytest.fixture
def model() -> nn.Module:
    return Mlp(features=72)


@pytest.fixture
def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_label_out_of_range_names_row_and_value(
    model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor:
        with pytest.raises(ValueError, match=r"labels\[2\] is 5: a label must be in 0\.\.4"):
            monitor.batch(torch.tensor([0, 4, 5]))
        with pytest.raises(ValueError, match=r"labels\[1\] is -1"):
            monitor.batch(torch.tensor([0, -1, 5]))
        with pytest.raises(
            TypeError, match=r"labels must be a tensor int64 \[N\], or soft, .* got torch\.float32 \[3\]"
        ):
            monitor.batch(torch.rand(3))
        with pytest.raises(TypeError, match=r"labels must be a tensor int64 \[N\], or soft, .* got list"):
            monitor.batch([0, 1])  # type: ignore[arg-type]


def test_a_step_without_a_batch_is_one_warning(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor:
        with pytest.warns(ImbdynWarning, match=r"optimizer step 1 came without a monitor\.batch"):
            train(model, [(images, labels)] * 3, optimizer=optimizer)
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)
    trace = open_trace(tmp_path / "run")
    assert trace.run["problems"]["step without batch"]["times"] == 3
    assert trace.steps[["since_step", "step", "count"]].to_numpy().tolist() == [[0, 4, 24]]


def test_a_model_without_a_classifier(optimizer: torch.optim.Optimizer, model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no classifier: no parameter of shape \[num_classes=7, features\]"):
        Monitor(model, optimizer, 7, tmp_path / "run")
    with pytest.raises(ValueError, match=r"classifier='haed' names no layer .* the nearest linear layer is 'head'"):
        Monitor(model, optimizer, CLASSES, tmp_path / "run", classifier="haed")
    with pytest.raises(
        ValueError, match=r"classifier='head' has a weight of shape \[5, .*\], not \[num_classes=7, features\]"
    ):
        Monitor(model, optimizer, 7, tmp_path / "run", classifier="head")
    assert not (tmp_path / "run").exists()


def test_one_logit_for_two_classes_is_told_what_to_do(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="a single logit is not read: end the model in two outputs, and train it with"):
        Monitor(model, optimizer, 2, tmp_path / "run")
    with pytest.raises(ValueError, match=r"at least 2, got 1 \(two classes need two logits\)"):
        Monitor(model, optimizer, 1, tmp_path / "run")


def test_logits_that_a_users_function_returns_are_a_tensor(tmp_path: Path) -> None:
    model = nn.Linear(4, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer, CLASSES, tmp_path / "run", logits=lambda output: {"y": output})  # type: ignore[arg-type,return-value]
    with monitor, pytest.raises(TypeError, match=r"logits=\.\.\. must return a tensor \[N, C\], got dict"):
        train(model, [(torch.ones(3, 4), torch.arange(3))], optimizer=optimizer, monitor=monitor)


@pytest.mark.parametrize("state", [{}, {"monitor": {"version": 1, "step": 2}}, None])
def test_a_state_that_is_none_is_told(tmp_path: Path, state: object) -> None:
    model = nn.Linear(4, CLASSES)
    monitor = Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), CLASSES, tmp_path / "run")
    with monitor, pytest.raises(ValueError, match=r"takes what Monitor\.state_dict\(\) returned, not the checkpoint"):
        monitor.load_state_dict(state)  # type: ignore[arg-type]


def test_a_gradient_that_is_not_finite_is_one_warning(tmp_path: Path) -> None:
    model = nn.Linear(4, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.ones(3, 4), torch.arange(3)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        train(model, [(x, y)], optimizer=optimizer, monitor=monitor)
        with pytest.warns(ImbdynWarning, match="the gradient of weight is not finite at step 2, and the optimizer"):
            train(model, [(x * torch.nan, y)] * 3, optimizer=optimizer, monitor=monitor)
    trace = open_trace(tmp_path / "run")
    assert list(trace.run["problems"]) == ["not finite"]
    assert trace.run["problems"]["not finite"]["times"] == 3
    later = trace.table("class_gradients", ["step", "sample_norm_sq"], ds.field("step") == 2)
    assert later["sample_norm_sq"].null_count == 0, "it was measured: NaN is no null"


def test_two_monitors_on_one_model(model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path) -> None:
    first = Monitor(model, optimizer, CLASSES, tmp_path / "a")
    with pytest.raises(ValueError, match="this model has a Monitor already"):
        Monitor(model, optimizer, CLASSES, tmp_path / "b")
    first.close()
    Monitor(model, optimizer, CLASSES, tmp_path / "b").close()


def test_an_existing_out_is_never_overwritten(
    model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path
) -> None:
    Monitor(model, optimizer, CLASSES, tmp_path / "run").close()
    with pytest.raises(FileExistsError, match="force"):
        Monitor(model, optimizer, CLASSES, tmp_path / "run")
    Monitor(model, optimizer, CLASSES, tmp_path / "run", force=True).close()


def test_an_output_without_logits(model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(x), x

    pair = Pair()
    optimizer = torch.optim.SGD(pair.parameters(), lr=0.1)
    with (
        Monitor(pair, optimizer, CLASSES, tmp_path / "a") as monitor,
        pytest.raises(TypeError, match=r"the model returns tuple.*logits=lambda output"),
        monitor.batch(labels),
    ):
        pair(images)
    with Monitor(pair, optimizer, CLASSES, tmp_path / "b", logits=lambda output: output[0]) as monitor:
        with monitor.batch(labels):
            F.cross_entropy(pair(images)[0], labels).backward()
        optimizer.step()
    assert open_trace(tmp_path / "b").steps["count"].tolist() == [24]


def test_logits_of_another_size_than_the_labels(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    with (
        Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor,
        pytest.raises(ValueError, match=r"logits must be \[N, C\] = \[3, 5\] .* got \[24, 5\]"),
        monitor.batch(labels[:3]),
    ):
        model(images)


def test_arguments_that_make_no_sense(model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path) -> None:
    def make(**options: object) -> None:
        Monitor(model, optimizer, CLASSES, tmp_path / "run", **options)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"budget must be a share of training time above 0 and at most 1, got 0\.0"):
        make(budget=0.0)
    with pytest.raises(ValueError, match="interval must be an int of at least 1, got 0"):
        make(interval=0)
    with pytest.raises(ValueError, match="class_names must have num_classes=5 names, got 2"):
        make(class_names=["a", "b"])
    with pytest.raises(ValueError, match="got 5"):
        make(budget=5)
    with pytest.raises(ValueError, match=r"interval must be an int of at least 1, got 2\.5"):
        make(interval=2.5)
    for names in ("abcde", 5, [1, 2, 3, 4, 5]):
        with pytest.raises(TypeError, match="class_names must be a list of str"):
            make(class_names=names)
    with pytest.raises(TypeError, match=r"config\['path'\] cannot be stored as JSON"):
        make(config={"path": tmp_path})
    with pytest.raises(TypeError, match="config must be a mapping of names to what JSON can hold, got list"):
        make(config=[("seed", 1)])
    with pytest.raises(TypeError, match=r"num_classes must be an int, got 5\.0"):
        Monitor(model, optimizer, 5.0, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="out must be a folder's path or a URI, got None"):
        Monitor(model, optimizer, CLASSES, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a module and an optimizer, got SGD and Mlp"):
        Monitor(optimizer, model, CLASSES, tmp_path / "run")  # type: ignore[arg-type]
    other = torch.optim.SGD(Mlp(features=72).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the optimizer holds no parameter of this model"):
        Monitor(model, other, CLASSES, tmp_path / "run")
    with pytest.raises(ValueError, match="LBFGS"):
        Monitor(model, torch.optim.LBFGS(model.parameters()), CLASSES, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluate_takes_no_reserved_name_and_does_not_nest(
    model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor:
        with pytest.raises(ValueError, match='"train" names the training windows'), monitor.evaluate("train"):
            raise AssertionError("not reached")
        with monitor.evaluate("test"), pytest.raises(ValueError, match="inside another evaluation"):
            monitor.evaluate("val").__enter__()


def test_an_evaluation_twice_after_a_step_is_read_once(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor, torch.no_grad():
        with monitor.evaluate("test"), monitor.batch(labels):
            model(images)
        with (
            pytest.warns(ImbdynWarning, match=r"evaluate\('test'\) came twice"),
            monitor.evaluate("test"),
            monitor.batch(labels),
        ):
            model(images)
    assert len(open_trace(tmp_path / "run").steps) == 1


def test_a_full_disk_does_not_stop_training(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_segment: Segment, _record: int, _payload: bytes) -> None:
        raise OSError(28, "No space left on device")

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor, monkeypatch.context() as patched:
        patched.setattr(Segment, "append", full)
        with pytest.warns(ImbdynWarning) as warned:
            train(model, [(images, labels)] * 3, optimizer=optimizer, monitor=monitor)
        patched.undo()
    assert [str(w.message).partition(";")[0] for w in warned] == [
        "imbdyn failed while recording a step and training goes on: OSError: [Errno 28] No space left on device",
        "the disk takes no rows",
    ]
    trace = open_trace(tmp_path / "run")
    assert trace.steps.step.tolist() == [1, 3], "the window is longer, and in the end the disk had room for all"
    assert trace.steps.since_step.tolist() == [0, 1]
    assert trace.run["problems"]["slow disk"]["times"] == 2
    assert trace.run["dropped_rows"] == 0


def test_on_error_raise_lets_the_failure_through(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", on_error="raise") as monitor:
        monkeypatch.setattr(TraceWriter, "flush_due", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)


SCRIPT = """
import sys, torch, torch.nn as nn, torch.nn.functional as F, imbdyn
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
monitor = imbdyn.Monitor(model, optimizer, 3, sys.argv[1], interval=1)
for step in range(5):
    y = torch.tensor([0, 1, 2])
    with monitor.batch(y):
        F.cross_entropy(model(torch.randn(3, 4)), y).backward()
    optimizer.step()
    if step == 3:
        {end}
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [("raise KeyboardInterrupt", "interrupted"), ("raise RuntimeError('x')", "failed"), ("sys.exit()", "finished")],
)
def test_a_run_that_is_left_without_close_loses_nothing(
    python: ForkedPython, tmp_path: Path, end: str, status: str
) -> None:
    python(SCRIPT.format(end=end), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == status
    assert open_trace(tmp_path / "run").steps.step.tolist() == [1, 2, 3, 4]


def test_an_epoch_or_a_split_of_a_wrong_type(
    model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor:
        with pytest.raises(TypeError, match=r"monitor\.epoch must be an int, got 'one'"):
            monitor.epoch = "one"  # type: ignore[assignment]
        with pytest.raises(TypeError, match="the name of an evaluation must be a str, got 3"):
            monitor.evaluate(3).__enter__()  # type: ignore[arg-type]


def test_an_aborted_batch_is_counted_nowhere(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    def fails(x: Tensor) -> None:
        model(x)
        raise RuntimeError("mine")

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        with pytest.raises(RuntimeError, match="mine"), monitor.batch(labels):
            fails(images)
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)
    assert open_trace(tmp_path / "run").steps["count"].tolist() == [24]


def test_half_an_evaluation_is_not_recorded(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor, torch.no_grad():
        with pytest.raises(KeyboardInterrupt), monitor.evaluate("test"), monitor.batch(labels):
            raise KeyboardInterrupt
        with monitor.evaluate("val"), monitor.batch(labels):
            model(images)
    assert open_trace(tmp_path / "run").steps.split.tolist() == ["val"]


def test_a_batch_that_is_never_entered_is_in_nobodys_way(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run") as monitor:
        monitor.batch(labels)
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)
        with monitor.batch(labels):
            model(images)
            with pytest.raises(ValueError, match=r"inside another monitor\.batch"):
                monitor.batch(labels)
    assert open_trace(tmp_path / "run").steps["count"].tolist() == [24]


def test_validation_outside_of_evaluate_is_one_warning_and_not_counted(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)
        with torch.no_grad(), pytest.warns(ImbdynWarning, match=r"outside of monitor\.evaluate"), monitor.batch(labels):
            model(images)
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)
    assert open_trace(tmp_path / "run").steps["count"].tolist() == [24, 24]


FULL_DISK = """
import resource, sys, torch, torch.nn as nn, torch.nn.functional as F, imbdyn
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with imbdyn.Monitor(model, optimizer, 3, sys.argv[1], interval=1) as monitor:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for step in range(20):
        if step == 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        y = torch.tensor([0, 1, 2])
        with monitor.batch(y):
            F.cross_entropy(model(torch.randn(3, 4)), y).backward()
        optimizer.step()
print("trained to the end")
"""


def test_files_that_cannot_grow_do_not_stop_training_and_nothing_is_lost(python: ForkedPython, tmp_path: Path) -> None:
    done = python(FULL_DISK, tmp_path / "run")
    assert (done.returncode, done.stdout) == (0, b"trained to the end\n")
    assert b"ImbdynWarning: imbdyn failed while recording a step and training goes on: OSError" in done.stderr
    trace = open_trace(tmp_path / "run")
    assert trace.steps.step.tolist() == [1, 20]
    assert trace.steps["count"].sum() == 60
    assert trace.run["dropped_rows"] == 0
    assert trace.run["problems"]["slow disk"]["times"] >= 9
    assert trace.run["coverage"]["share"] == 1.0, "run.json has caught up"


def test_an_exception_inside_a_batch_leaves_no_mode_on(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    def fails(x: Tensor) -> None:
        model(x)
        raise RuntimeError("mine")

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        with pytest.raises(RuntimeError, match="mine"), monitor.batch(labels):
            fails(images)
        assert torch.overrides._get_current_function_mode() is None
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)


@pytest.mark.parametrize("interval", [1, 100], ids=["sampled", "not sampled"])
def test_a_forward_pass_in_another_thread_is_not_of_the_batch(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path, interval: int
) -> None:
    """As of a server that answers while the model trains: its batch may have any size."""
    with ThreadPoolExecutor(1) as other, Monitor(model, optimizer, CLASSES, tmp_path, interval=interval) as monitor:
        for served in (images[:3], images.flip(0)):
            with monitor.batch(labels):
                other.submit(model, served).result()
                F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        z = model(images)
        with monitor.evaluate("test"), monitor.batch(labels):
            other.submit(model, images.flip(0)).result()
            model(images)
    trace = open_trace(tmp_path)
    assert trace.run["problems"] == {}
    test = trace.steps[trace.steps.split == "test"]
    assert test.loss.item() == pytest.approx(F.cross_entropy(z, labels).item(), rel=1e-5)
