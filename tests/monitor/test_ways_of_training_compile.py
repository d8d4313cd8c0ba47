"""torch.compile: two graphs and no break, the same class gradients, and no compile error that stops a training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import Mlp
from torch import Tensor, nn
from torch._dynamo.utils import counters
from ways import (
    CLASSES,
    NormalisedCnn,
    VisionTransformer,
    assert_exact,
    assert_read,
    assert_same_class_gradients,
    of_cross_entropy,
)

from imbdyn import ImbdynWarning, Monitor, Trace, open_trace
from imbdyn.monitor.residuals import THRESHOLD_REDUCED
from imbdyn.taps.mode import Watch

# what torch's compiler itself does
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch\\.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*torch.autograd.function.Function.* should not be instantiated:DeprecationWarning"
    ),
]

#: Dynamo, autograd and the partitioner, but no code generation: seconds instead of minutes.
QUICK = {"backend": "aot_eager", "fullgraph": True}
MODES = {"default": {"fullgraph": True}, "max-autotune": {"fullgraph": True, "mode": "max-autotune-no-cudagraphs"}}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Mlp(features=72),
    "cnn": NormalisedCnn,
    "transformer": VisionTransformer,
}
SIZES = (24,) * 5
#: All others than any other dimension of the networks, and all above 15, where the convolution changes its algorithm:
#: Dynamo makes a graph of its own for what it sees as equal or as crossing a border.
DYNAMIC_SIZES = (24, 24, 19, 29, 23, 31)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]()


def batches(sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(6)
    return [
        (torch.randn(n, 2, 6, 6, generator=generator), torch.randint(0, CLASSES, (n,), generator=generator))
        for n in sizes
    ]


def train(
    called: nn.Module,
    out: Path,
    sizes: tuple[int, ...] = SIZES,
    *,
    lr: float = 0.01,
    interval: int = 2,
    evaluations: int = 0,
) -> Trace:
    """Train what is called; step 1 learns, steps 2, 4, ... are watched, the others are not."""
    optimizer = torch.optim.SGD(called.parameters(), lr=lr)
    with Monitor(called, optimizer, CLASSES, out, interval=interval) as monitor:
        for x, y in batches(sizes):
            with monitor.batch(y):
                F.cross_entropy(called(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            for split in range(evaluations):
                with torch.no_grad(), monitor.evaluate(f"test {split}"):
                    for part in (slice(0, 16), slice(8, 24)):
                        with monitor.batch(y[part]):
                            called(x[part])
    return open_trace(out)


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def assert_two_graphs() -> None:
    assert graphs() == 2, "one that is watched, one that is not"
    assert not counters["graph_break"]


def check(name: str, tmp_path: Path, sizes: tuple[int, ...] = SIZES, *, in_place: bool = False, **options: Any) -> None:
    """Two graphs, every parameter exact, and what is read equal to what is read of the eager model."""
    eager, model = make(name), make(name)
    called = model
    if in_place:
        model.compile(**options)
    else:
        called = torch.compile(model, **options)
    trace = train(called, tmp_path / "compiled", sizes)
    assert_two_graphs()
    assert_exact(trace)
    assert sorted(trace.parameters.step.unique()) == [1, *range(2, len(sizes) + 1, 2)]
    assert_same_class_gradients(trace, train(eager, tmp_path / "eager", sizes), rtol=1e-4)  # their weights drift apart
    if name != "cnn":  # where samples mix, class gradients by loss are other ones
        still = torch.compile(model, **options) if not in_place else model
        state = copy.deepcopy(model.state_dict())
        x, y = batches(sizes)[-1]
        trace = train(still, tmp_path / "still", sizes, lr=0.0)
        eager.load_state_dict(state)
        last = len(sizes) // 2 * 2
        x, y = batches(sizes)[last - 1]
        assert_read(trace, of_cross_entropy(eager, x, y), step=last)


@pytest.mark.parametrize("name", ["mlp", "cnn", pytest.param("transformer", marks=pytest.mark.nightly)])
def test_two_graphs(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, **QUICK)


def test_inductor(tmp_path: Path) -> None:
    check("mlp", tmp_path, fullgraph=True)


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.nightly)])
def test_dynamic_batch_sizes(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, DYNAMIC_SIZES, dynamic=True, **QUICK)


@pytest.mark.parametrize("name", ["mlp", pytest.param("transformer", marks=pytest.mark.nightly)])
def test_a_model_compiled_in_place(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, in_place=True, **QUICK)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_inductor_in_every_mode(name: str, mode: str, tmp_path: Path) -> None:
    check(name, tmp_path, **MODES[mode])


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_inductor_with_dynamic_batch_sizes(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, DYNAMIC_SIZES, dynamic=True, fullgraph=True)


@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_evaluations_share_one_graph(tmp_path: Path, in_place: bool) -> None:
    model = called = make("mlp")
    if in_place:
        model.compile(**QUICK)
    else:
        called = torch.compile(model, **QUICK)
    trace = train(called, tmp_path / "run", evaluations=3)
    assert graphs() == 3, "watched, not watched, and one for the 30 batches of all evaluations"
    assert_exact(trace)
    assert len(trace.features) == 15
    assert trace.features.nc1.notna().all()
    assert (trace.steps[trace.steps.split != "train"].batches == 2).all()


def test_a_graph_break_of_the_users_own(tmp_path: Path) -> None:
    class Broken(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.first(x.flatten(1)))
            torch._dynamo.graph_break()
            return self.head(torch.tanh(self.second(h)))

    torch.manual_seed(0)
    model = Broken(features=72)
    trace = train(torch.compile(model, backend="aot_eager"), tmp_path / "run")
    assert graphs() == 4, "each of the two for either half"
    assert_exact(trace)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(72, 72)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.linear(x))


def test_blocks_that_are_compiled_by_themselves_run_eagerly_when_watched(tmp_path: Path) -> None:
    """They share one graph; watched, each would need its own, past Dynamo's limit."""
    torch.manual_seed(0)
    blocks = [Block() for _ in range(12)]
    for block in blocks:
        block.compile(**QUICK)
    trace = train(nn.Sequential(nn.Flatten(), nn.Linear(72, 72), *blocks, nn.Linear(72, CLASSES)), tmp_path / "run")
    assert_exact(trace)
    assert graphs() == 1


@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_a_watched_graph_that_cannot_be_made_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    def fails(*_: object) -> None:
        torch._dynamo.graph_break()

    monkeypatch.setattr(Watch, "_tap_compiled", fails)
    model = called = make("mlp")
    if in_place:
        model.compile(**QUICK)
    else:
        called = torch.compile(model, **QUICK)
    with pytest.warns(ImbdynWarning, match="cannot make the graph of a watched step, so that sampled steps run withou"):
        trace = train(called, tmp_path / "run")
    assert trace.run["problems"]["compile"]["times"] == 1
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.parameters.residual.notna().all()
    assert trace.parameters.residual.max() <= 1e-5
    assert_same_class_gradients(trace, train(make("mlp"), tmp_path / "eager"), rtol=1e-4)


def test_an_error_of_the_users_own_is_raised_as_it_is(tmp_path: Path) -> None:
    model = torch.compile(make("mlp"), **QUICK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batches((24,))[0]
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for wrong in (x, x[:, :, :5], x):
            if wrong is x:
                with monitor.batch(y):
                    F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
                continue
            with (
                pytest.warns(ImbdynWarning, match="cannot make the graph"),
                pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
                monitor.batch(y),
            ):
                model(wrong)
    assert open_trace(tmp_path / "run").parameters.residual.max() <= 1e-5


def test_what_the_compiler_hides_is_read_eagerly_from_then_on(tmp_path: Path) -> None:
    """Dynamo computes a parametrized weight where no mode sees it."""
    torch.manual_seed(0)
    model = Mlp(features=72)
    nn.utils.parametrizations.weight_norm(model.second)
    with pytest.warns(ImbdynWarning, match=r"hides how second\..* is used .*, so that sampled steps run without it"):
        trace = train(torch.compile(model, **QUICK), tmp_path / "run", interval=1)
    assert trace.run["problems"]["compile"]["times"] == 1
    assert trace.run["coverage"]["share"] == 1.0
    second = trace.parameters[trace.parameters.parameter.str.startswith("second.")]
    assert second.residual.notna().groupby(second.step).all().tolist() == [True, False, True, True, True]
    assert trace.parameters[~trace.parameters.parameter.str.startswith("second.")].residual.notna().all()
    assert trace.parameters.residual.max() <= 1e-5


def test_layers_unfrozen_under_compile_are_learned(tmp_path: Path) -> None:
    model = make("mlp")
    model.first.requires_grad_(False)
    called = torch.compile(model, **QUICK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(called, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for number, (x, y) in enumerate(batches((24,) * 6)):
            if number == 3:
                model.first.requires_grad_(True)
            with monitor.batch(y):
                F.cross_entropy(called(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    assert trace.parameters.groupby("step").size().tolist() == [4] * 3 + [6] * 3


def test_backward_passes_of_compiled_graphs_in_another_order_than_the_batches(tmp_path: Path) -> None:
    model = make("mlp")
    called = torch.compile(model, **QUICK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    (x, y), (other_x, other_y) = batches((24, 24))
    a, b = of_cross_entropy(model, x, y), of_cross_entropy(model, other_x, other_y)
    with Monitor(called, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for _ in range(3):
            with monitor.batch(y):
                first = F.cross_entropy(called(x), y)
            with monitor.batch(other_y):
                F.cross_entropy(called(other_x), other_y).backward()
            first.backward()  # last made, first differentiated
            optimizer.step()
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, {name: a[name] + b[name] for name in a}, step=3)


def test_two_forward_passes_through_compiled_graphs(tmp_path: Path) -> None:
    model = make("mlp")
    called = torch.compile(model, **QUICK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    (x, y), (other, _) = batches((24, 24))
    a, b = of_cross_entropy(model, x, y), of_cross_entropy(model, other, y)
    with Monitor(called, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for _ in range(3):
            with monitor.batch(y):
                (F.cross_entropy(called(x), y) + F.cross_entropy(called(other), y)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert graphs() == 2, "one for each of the two uses of every parameter"
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    for step in (1, 3):
        assert_read(trace, {name: a[name] + b[name] for name in a}, step=step)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_in_a_compiled_graph(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make("mlp")
    called = torch.compile(model, **QUICK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(called, optimizer, CLASSES, tmp_path / "run", interval=2) as monitor:
        for x, y in batches(SIZES):
            with monitor.batch(y):
                with torch.autocast("cpu", dtype):
                    loss = F.cross_entropy(called(x), y)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert_two_graphs()
    assert_exact(open_trace(tmp_path / "run"), residual=THRESHOLD_REDUCED)


def test_compile_after_the_monitor_was_made_is_one_clear_warning(tmp_path: Path) -> None:
    model = make("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = batches((24,))[0]

    def forward_and_backward(monitor: Monitor) -> None:
        with monitor.batch(y):
            F.cross_entropy(model(x), y).backward()

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=100) as monitor:
        model.compile(**QUICK)
        forward_and_backward(monitor)  # learned eagerly
        optimizer.step()
        with pytest.warns(ImbdynWarning, match=r"model\.compile\(\) came after Monitor"):
            forward_and_backward(monitor)
        optimizer.step()
        forward_and_backward(monitor)
        optimizer.step()
    assert open_trace(tmp_path / "run").run["problems"]["no forward pass"]["times"] == 2


def test_a_function_around_the_model_shows_its_outputs_when_it_is_watched(tmp_path: Path) -> None:
    """And one warning says that on other steps it does not."""
    model = make("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    @torch.compile(**QUICK)
    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    def step(monitor: Monitor, x: Tensor, y: Tensor) -> None:
        with monitor.batch(y):
            loss_of(x, y).backward()
        optimizer.step()
        optimizer.zero_grad()

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=2) as monitor:
        for x, y in batches((24, 24)):
            step(monitor, x, y)
        with pytest.warns(ImbdynWarning, match=r"no forward pass .* has compiled a function around it"):
            step(monitor, x, y)
    trace = open_trace(tmp_path / "run")
    assert trace.steps["count"].tolist() == [24, 24, 0]
    assert trace.parameters.residual.max() <= 1e-5
    assert trace.run["coverage"]["share"] == 1.0


def test_the_compiler_is_kept_out_of_what_an_optimizers_step_sets_off(tmp_path: Path) -> None:
    """Else it would compile the writing of the trace (half a minute), and warn of its caches."""
    model = make("mlp")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    @torch.compile(backend="aot_eager")
    def step() -> None:
        optimizer.step()

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for x, y in batches((24, 24, 24)):
            with monitor.batch(y):
                F.cross_entropy(model(x), y).backward()
            step()
            optimizer.zero_grad()
    assert_exact(open_trace(tmp_path / "run"))
    assert open_trace(tmp_path / "run").parameters.step.nunique() == 3


def test_a_batch_inside_of_a_compiled_function_is_one_sentence(tmp_path: Path) -> None:
    model = make("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:

        @torch.compile(backend="aot_eager")
        def forward_and_backward(x: Tensor, y: Tensor) -> None:
            with monitor.batch(y):
                F.cross_entropy(model(x), y).backward()

        with pytest.raises(RuntimeError, match=r"^monitor\.batch\(\.\.\.\) inside of a function that torch\.compile"):
            forward_and_backward(*batches((24,))[0])


def test_closing_gives_the_compiled_call_back(tmp_path: Path) -> None:
    wrapped = torch.compile(make("mlp"), **QUICK)
    in_place = make("mlp")
    in_place.compile(**QUICK)
    for number, model in enumerate((wrapped, in_place)):
        before = model.forward, model._compiled_call_impl
        monitor = Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), CLASSES, tmp_path / str(number))
        assert (model.forward, model._compiled_call_impl) != before
        copied = copy.deepcopy(in_place)
        assert copied._compiled_call_impl is None
        monitor.close()
        assert (model.forward, model._compiled_call_impl) == before
        assert not model._forward_hooks
