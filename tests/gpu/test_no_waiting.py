"""On a GPU the host never waits for the device between the forward pass and the optimizer step, nor in it.

The first steps, which learn the model, may wait. All else runs where torch raises an error for a call that waits.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loops import CLASSES
from monitor.ways import NormalisedCnn, VisionTransformer
from networks import Mlp
from same_trace import assert_same_trace
from torch import Tensor, nn

import imbdyn

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's own
    # of torch.compile, on any GPU that has TF32: float32 products are exact here
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

#: Steps that may wait: at interval 3 the second sampled one is step 3.
LEARNING = 3
STEPS = 8
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Mlp(features=72),
    "cnn": NormalisedCnn,
    "transformer": VisionTransformer,
}


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Products in float32, and the same ones every time."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


@contextmanager
def nobody_waits(on: bool = True) -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error" if on else "default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def batches(device: str, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    images = [torch.randn(24, 2, 6, 6, generator=random) for _ in range(steps)]
    labels = [torch.randint(0, CLASSES - i % 2, (24,), generator=random) for i in range(steps)]
    return [(x.to(device), y.to(device)) for x, y in zip(images, labels, strict=True)]


def train(
    model: nn.Module,
    out: Path | None,
    *,
    device: str = "cuda",
    interval: int = 1,
    micro_batches: int = 1,
    cpu_labels: bool = False,
    ignored: int | None = None,
    clip: bool = False,
    run: Callable[[], AbstractContextManager[Any]] = nullcontext,
    watch: bool = True,
) -> imbdyn.Trace | None:
    """Train, with a Monitor if `out` is given, where nobody may wait after the first steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    monitor = None
    if out is not None:
        monitor = imbdyn.Monitor(model, optimizer, CLASSES, out, interval=interval, on_error="raise")
    given = batches(device, STEPS * micro_batches)
    told = [y.cpu() if cpu_labels else y for _, y in given]
    if ignored is not None:
        told = [torch.where(y == ignored, -100, y) for y in told]
        given = [(x, torch.where(y == ignored, -100, y)) for x, y in given]
    for step in range(STEPS):
        optimizer.zero_grad()
        with nobody_waits(watch and device == "cuda" and step >= LEARNING), run():
            for i in range(step * micro_batches, (step + 1) * micro_batches):
                x, y = given[i]
                with nullcontext() if monitor is None else monitor.batch(told[i]):
                    (F.cross_entropy(model(x), y) / micro_batches).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    if monitor is None:
        return None
    monitor.close()
    assert out is not None
    return imbdyn.open_trace(out)


def assert_whole(trace: imbdyn.Trace | None, *, sampled: int = STEPS, residual: float = 1e-4) -> None:
    assert trace is not None
    coverage = trace.run["coverage"]
    reasons = {n: about["reason"] for n, about in coverage["parameters"].items() if about["reason"]}
    assert not reasons
    assert trace.run["problems"] == {}
    assert coverage["share"] == 1.0
    assert trace.parameters.step.nunique() == trace.steps.sampled.sum() == sampled
    assert trace.run["overhead"]["sampled_steps"] == sampled
    assert trace.parameters.residual.max() <= residual
    assert (trace.steps[trace.steps.split == "train"].step_seconds > 0).all()


@pytest.mark.parametrize(("interval", "sampled"), [(1, STEPS), (3, 3)])
def test_nobody_waits_and_the_trace_is_that_of_the_cpu(
    network: nn.Module, tmp_path: Path, interval: int, sampled: int
) -> None:
    state = {k: v.clone() for k, v in network.state_dict().items()}
    here = train(network, tmp_path / "cpu", device="cpu", interval=interval)
    network.load_state_dict(state)
    there = train(network.cuda(), tmp_path / "gpu", interval=interval)
    assert_whole(there, sampled=sampled)
    assert here is not None
    assert there is not None
    assert there.run["class_counts"] == here.run["class_counts"]
    assert_same_trace(here, there, relative=2e-3)


def test_weights_are_bit_identical_with_and_without(network: nn.Module, tmp_path: Path) -> None:
    state = {k: v.clone() for k, v in network.state_dict().items()}
    model = network.cuda()
    train(model, None)
    bare = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    train(model, tmp_path / "run", interval=2, watch=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, bare[name]), name


@pytest.mark.parametrize(
    "options",
    [{"cpu_labels": True}, {"micro_batches": 2}, {"ignored": 1}, {"clip": True}],
    ids=["labels on the CPU", "micro-batches", "ignored samples", "clipping"],
)
def test_ways_of_training(network: nn.Module, tmp_path: Path, options: dict[str, Any]) -> None:
    state = {k: v.clone() for k, v in network.state_dict().items()}
    here = train(network, tmp_path / "cpu", device="cpu", **options)
    network.load_state_dict(state)
    there = train(network.cuda(), tmp_path / "gpu", **options)
    assert_whole(there)
    assert here is not None
    assert there is not None
    assert_same_trace(here, there, relative=2e-3)


def test_all_on_a_side_stream(network: nn.Module, tmp_path: Path) -> None:
    state = {k: v.clone() for k, v in network.state_dict().items()}
    model = network.cuda()
    straight = train(model, tmp_path / "default", watch=False)
    model.load_state_dict(state)
    side = torch.cuda.Stream()

    @contextmanager
    def on_side() -> Iterator[None]:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            yield
        torch.cuda.current_stream().wait_stream(side)

    aside = train(model, tmp_path / "side", run=on_side)
    assert_whole(aside)
    assert straight is not None
    assert aside is not None
    assert_same_trace(straight, aside, relative=1e-5)


def test_forward_and_backward_on_a_side_stream_and_the_step_on_the_default(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mlp(features=72).cuda()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    straight = train(model, tmp_path / "default", watch=False)
    model.load_state_dict(state)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    side, default = torch.cuda.Stream(), torch.cuda.current_stream()
    with imbdyn.Monitor(model, optimizer, CLASSES, tmp_path / "side", interval=1, on_error="raise") as monitor:
        for step, (x, y) in enumerate(batches("cuda")):
            optimizer.zero_grad()
            with nobody_waits(step >= LEARNING):
                side.wait_stream(default)
                with monitor.batch(y), torch.cuda.stream(side):
                    torch.cuda._sleep(1_000_000)  # what is read too early would be of the step before
                    F.cross_entropy(model(x), y).backward()
                default.wait_stream(side)
                optimizer.step()
    aside = imbdyn.open_trace(tmp_path / "side")
    assert_whole(aside)
    assert straight is not None
    assert_same_trace(straight, aside, relative=1e-5)


def test_the_host_is_through_a_step_while_the_gpu_is_still_before_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mlp(features=72).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    asleep = {11, 12, 15}  # of which 12 and 15 are sampled
    with imbdyn.Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=3, on_error="raise") as monitor:
        for step, (x, y) in enumerate(batches("cuda", 15), 1):
            if step in asleep:
                torch.cuda.synchronize()
                torch.cuda._sleep(4_000_000_000)  # two seconds
                busy = torch.cuda.Event()
                busy.record()
            with (tmp_path / "where").open("w+") as where:
                faulthandler.dump_traceback_later(1.0, file=where)  # shows what waits, if anything does
                began = time.perf_counter()
                with monitor.batch(y):
                    F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
                took = time.perf_counter() - began
                faulthandler.cancel_dump_traceback_later()
                if step in asleep and busy.query():
                    where.seek(0)
                    raise AssertionError(f"step {step} has waited: {took:.2f} s, of which after one\n{where.read()}")
    trace = imbdyn.open_trace(tmp_path / "run")
    assert trace.steps.step.tolist() == [1, 3, 6, 9, 12, 15]
    seconds = trace.steps.set_index("step").step_seconds
    # nothing is asked of step 9 alone: it takes what the host takes, beside as many tests as the machine has processors
    assert seconds[12] - seconds[9] > 0.8, "steps are timed on the GPU, which slept in two of these three"


def test_autocast_and_a_grad_scaler_with_a_fused_optimizer(network: nn.Module, tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(False)
    model = network.cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler("cuda")
    overflow = 6
    with imbdyn.Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1, on_error="raise") as monitor:
        for step, (x, y) in enumerate(batches("cuda"), 1):
            optimizer.zero_grad()
            with nobody_waits(step > LEARNING):
                with monitor.batch(y):
                    with torch.autocast("cuda", torch.bfloat16):
                        loss = F.cross_entropy(model(x), y)
                    scaler.scale(loss * (float("inf") if step == overflow else 1.0)).backward()
                scaler.step(optimizer)
                scaler.update()
    trace = imbdyn.open_trace(tmp_path / "run")
    assert_whole(trace, sampled=STEPS - 1, residual=2e-2)
    assert trace.steps.set_index("step").sampled.to_dict() == {s: s != overflow for s in range(1, STEPS + 1)}
    assert trace.steps.grad_norm.max() < 100, "without the scaler's factor of 65536"


def test_a_compiled_model(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(0)
    network = VisionTransformer()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    eager = train(network.cuda(), tmp_path / "eager", watch=False)
    network.load_state_dict(state)
    compiled = train(torch.compile(network), tmp_path / "compiled")
    assert_whole(compiled)
    assert eager is not None
    assert compiled is not None
    assert_same_trace(eager, compiled, relative=2e-3)
