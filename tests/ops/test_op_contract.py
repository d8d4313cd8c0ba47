"""What all five ops promise alike: a torch.library entry with a fake, compilation without a break, and clear errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from op_cases import make_rows
from torch import Tensor

from imbdyn import ops
from imbdyn.ops import _extension
from imbdyn.ops._library import IMPLEMENTATIONS, serving

OPS = ("class_moments", "class_logits", "class_gram", "norm_gradients", "parameter_norms")
COMPILED = ("class_moments", "class_logits", "class_gram", "norm_gradients", "parameter_norms")
A = make_rows(40, 6, 5, ignored=True)
D = make_rows(40, 5, 1, seed=1).matrix
Z = make_rows(40, 5, 5, ignored=True)
SAMPLES = torch.arange(40) // 2
IMAGES = torch.arange(40 * 2 * 5 * 4.0).sin().view(40, 2, 5, 4)
PLACES = torch.arange(3 * 4 * 5.0).sin().view(3, 4, 5)
IMAGE_GRADS = torch.arange(40 * 4 * 3 * 2.0).cos().view(40, 4, 3, 2)

LIBRARY_CALLS = [
    pytest.param(torch.ops.imbdyn.class_moments.default, (A.matrix, A.labels, 5, -100), id="class_moments"),
    pytest.param(torch.ops.imbdyn.class_logits.default, (Z.matrix, Z.labels, -100), id="class_logits"),
    pytest.param(
        torch.ops.imbdyn.add_class_logits.default,
        (torch.zeros(8, 5, dtype=torch.float64), Z.matrix, Z.labels, -100),
        id="add_class_logits",
    ),
    pytest.param(
        torch.ops.imbdyn.add_class_moments.default,
        (torch.ones(5, dtype=torch.int64), torch.ones(5, 6), torch.ones(5, 6), A.matrix, A.labels, -100),
        id="add_class_moments",
    ),
    pytest.param(torch.ops.imbdyn.class_gram.default, (A.matrix, D, A.labels, 5, None, -100), id="class_gram"),
    pytest.param(
        torch.ops.imbdyn.class_gram.default, (A.matrix, D, A.labels, 5, SAMPLES, -100), id="class_gram of samples"
    ),
    pytest.param(
        torch.ops.imbdyn.class_gram_linear.default, (A.matrix, D, A.labels, 5, SAMPLES, -100), id="class_gram_linear"
    ),
    pytest.param(
        torch.ops.imbdyn.class_gram_conv.default,
        (IMAGES, IMAGE_GRADS, A.labels, 5, [3, 3], [2, 2], [1, 1], [1, 1], 2, -100),
        id="class_gram_conv",
    ),
    pytest.param(
        torch.ops.imbdyn.norm_gradients.default, (PLACES, PLACES.cos(), 2, True, None, None, 0.1), id="norm_gradients"
    ),
    pytest.param(
        torch.ops.imbdyn.norm_gradients.default,
        (PLACES, PLACES.cos(), 4, False, torch.zeros(4), torch.ones(4), 0.1),
        id="norm_gradients by given statistics",
    ),
    pytest.param(
        torch.ops.imbdyn.norm_gradients_rows.default, (PLACES, PLACES.cos(), True, 0.1), id="norm_gradients_rows"
    ),
    pytest.param(
        torch.ops.imbdyn.parameter_norms.default, ([A.matrix, D], [A.matrix, D], [A.matrix, D], 1), id="parameter_norms"
    ),
]


def added_logits(logits: torch.Tensor) -> torch.Tensor:
    sums = torch.ones(8, 5, dtype=torch.float64)
    ops.add_class_logits(sums, logits, Z.labels)
    return sums


def added_moments(features: torch.Tensor) -> torch.Tensor:
    moments = ops.class_moments(features, A.labels, 5)
    ops.add_class_moments(moments, features, A.labels)
    return moments.m2


#: The public functions as a user's compiled function would call them.
PUBLIC_CALLS = [
    pytest.param(lambda x: ops.class_moments(x * 2, A.labels, 5), id="class_moments"),
    pytest.param(lambda x: ops.class_logits(x[:, :5] * 2, Z.labels), id="class_logits"),
    pytest.param(lambda x: added_moments(x * 2), id="add_class_moments"),
    pytest.param(lambda x: added_logits(x[:, :5] * 2), id="add_class_logits"),
    pytest.param(lambda x: ops.class_gram(x * 2, D, A.labels, 5), id="class_gram"),
    pytest.param(lambda x: ops.class_gram(x * 2, D, A.labels, 5, SAMPLES), id="class_gram of samples"),
    pytest.param(lambda x: sum(ops.class_gram_linear(x * 2, D, A.labels, 5), start=()), id="class_gram_linear"),
    pytest.param(
        lambda x: ops.class_gram_conv(
            IMAGES * x[:, :1, None, None],
            IMAGE_GRADS,
            A.labels,
            5,
            (3, 3),
            stride=(2, 2),
            padding=(1, (1, 0)),
            dilation=(1, 1),
        ),
        id="class_gram_conv",
    ),
    pytest.param(lambda x: ops.norm_gradients(x[None] * 2, x[None], 4), id="norm_gradients"),
    pytest.param(lambda x: ops.norm_gradients_rows(x[None] * 2, x[None]), id="norm_gradients_rows"),
    pytest.param(lambda x: ops.parameter_norms([x * 2], [x], [None], rows=0), id="parameter_norms"),
]


@pytest.mark.parametrize(("op", "args"), LIBRARY_CALLS)
def test_opcheck_passes(op: torch._ops.OpOverload, args: tuple[object, ...]) -> None:
    torch.library.opcheck(op, args)


@pytest.mark.parametrize("call", PUBLIC_CALLS)
def test_compiles_without_a_graph_break(call: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for got, eager in zip(compiled(A.matrix), call(A.matrix), strict=True):
        torch.testing.assert_close(got, eager, rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
def test_inductor_compiles_an_op_between_others() -> None:
    def relu_moments(x: Tensor) -> Tensor:
        return ops.class_moments(x.relu() * 2, A.labels, 5).mean + 1

    torch._dynamo.reset()
    compiled = torch.compile(relu_moments, fullgraph=True)
    torch.testing.assert_close(compiled(A.matrix), relu_moments(A.matrix))


@pytest.mark.parametrize("call", PUBLIC_CALLS)
def test_needs_no_gradient_and_leaves_none(call: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    x = A.matrix.clone().requires_grad_()
    assert not any(t.requires_grad for t in call(x))


@pytest.mark.parametrize("op", OPS)
def test_cpu_is_served_and_by_whom_is_known(op: str) -> None:
    chosen = serving(op, "cpu")
    if op in COMPILED and _extension.kernels is not None:
        assert (chosen.name, chosen.detail) == ("cpu", f"C++, {_extension.kernels.active_isa()}")
    assert chosen in IMPLEMENTATIONS


def test_uninitialised_tensor_of_imbdyn_is_filled_here() -> None:
    ours = {"torch": torch, "__name__": "imbdyn.somewhere"}
    assert bool(eval("torch.empty(3)", ours).isnan().all())
    assert bool(eval("torch.ones(2).new_empty(3, dtype=torch.int64)", ours).lt(-(2**62)).all())


def test_the_extension_is_built() -> None:
    assert _extension.kernels is not None, _extension.why_missing
    assert _extension.why_missing == ""
    assert _extension.kernels.compiler.split()[0] in ("gcc", "clang", "msvc")


def test_bound_kernel_refuses_what_are_not_its_numbers() -> None:
    kernels = _extension.kernels
    assert kernels is not None
    with pytest.raises(TypeError, match="14 numbers are taken, got 2"):
        kernels.class_moments(1, 2)
    with pytest.raises(TypeError, match="int"):
        kernels.class_logits(*["no number"] * 11)
    with pytest.raises(OverflowError):
        kernels.class_logits(*[2**63] * 11)


def test_without_the_extension_the_reference_serves_and_the_reason_is_recorded() -> None:
    code = """
import sys
sys.modules["imbdyn._C"] = None
import torch
from imbdyn import ops
from imbdyn.ops._library import IMPLEMENTATIONS, serving
assert ops.class_moments(torch.ones(2, 1), torch.tensor([0, 0]), 1).mean.item() == 1
assert ops.parameter_norms([torch.ones(4)], [None], [None]).tensors[0, 0].item() == 2
x = torch.arange(12.0).view(2, 2, 3)
y = torch.tensor([0, 1])
assert ops.class_gram_linear(x[0], x[1], y, 2)[1].gram.tolist() == [[149, 212], [212, 302]]
assert ops.norm_gradients(x, x, 2, eps=0).bias.tolist() == [[3, 12], [21, 30]]
assert ops.norm_gradients_rows(x, x).bias.tolist() == [[3, 5, 7], [15, 17, 19]]
assert ops.class_gram_conv(x, x, y, 2, [1], stride=[1], padding=[0], dilation=[1]).gram.isfinite().all()
for op in ("class_moments", "class_logits", "class_gram", "norm_gradients", "parameter_norms"):
    assert serving(op, "cpu").name == ("portable" if op in ("class_gram", "norm_gradients") else "reference")
    (cpu,) = (i for i in IMPLEMENTATIONS if i.op == op and i.name == "cpu")
    assert "imbdyn._C was not built or does not load" in cpu.why_not, cpu
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def calls_with_labels(labels: Tensor, num_classes: int = 5) -> list[Callable[[], object]]:
    rows = torch.zeros(len(labels), num_classes)
    return [
        lambda: ops.class_moments(rows, labels, num_classes),
        lambda: ops.class_logits(rows, labels),
        lambda: ops.class_gram(rows, rows, labels, num_classes),
    ]


@pytest.mark.parametrize("which", range(3), ids=OPS[:3])
@pytest.mark.parametrize("value", [-1, 5, -101, 2**62, -(2**63)])
@pytest.mark.parametrize(("row", "rows"), [(0, 1), (7, 9), (64, 1000), (999, 1000)])
def test_bad_label_is_an_error_that_names_row_and_value(which: int, value: int, row: int, rows: int) -> None:
    labels = torch.zeros(rows, dtype=torch.int64)
    labels[row] = value
    with pytest.raises(ValueError, match=rf"^labels\[{row}\] is {value}: .* 0\.\.4 .*-100$"):
        calls_with_labels(labels)[which]()


@pytest.mark.parametrize("which", range(3), ids=OPS[:3])
def test_first_of_several_bad_labels_is_named(which: int) -> None:
    labels = torch.zeros(100_000, dtype=torch.int64)  # several parts of work, on several threads
    labels[[30_001, 99_999]] = 6
    with pytest.raises(ValueError, match=r"^labels\[30001\] is 6"):
        calls_with_labels(labels)[which]()


@pytest.mark.parametrize("which", range(3), ids=OPS[:3])
def test_wrong_shape_or_dtype_of_labels_is_an_error(which: int) -> None:
    with pytest.raises(TypeError, match=r"labels must be int64, got torch\.int32"):
        calls_with_labels(torch.zeros(3, dtype=torch.int32))[which]()
    with pytest.raises(ValueError, match=r"labels must be \[N\]"):
        calls_with_labels(torch.zeros(3, 1, dtype=torch.int64))[which]()


@pytest.mark.parametrize("which", range(3), ids=OPS[:3])
def test_no_class_is_an_error(which: int) -> None:
    for labels in (torch.zeros(0, dtype=torch.int64), torch.full((3,), -100)):
        with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
            calls_with_labels(labels, 0)[which]()


def test_wrong_features_are_an_error() -> None:
    y = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"features must be a matrix \[N, D\], got shape \(2,\)"):
        ops.class_moments(torch.zeros(2), y, 1)
    with pytest.raises(TypeError, match=r"features must have a floating dtype, got torch\.int64"):
        ops.class_moments(torch.zeros(2, 1, dtype=torch.int64), y, 1)
    with pytest.raises(TypeError, match="features must be float64, float32, bfloat16 or float16"):
        ops.class_moments(torch.zeros(2, 1).to(torch.float8_e5m2), y, 1)
