from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from op_cases import DTYPES, SETTINGS, assert_accurate, special_value, where_finite
from torch import Tensor

from imbdyn.ops import ClassGram, _extension, class_gram, class_gram_conv
from imbdyn.ops.class_gram.cpu import sliding_gram, unfolded_gram
from imbdyn.ops.class_gram.geometry import pad_reached
from imbdyn.ops.class_gram.portable_convolution import class_gram_conv_portable
from imbdyn.ops.class_gram.reference import class_gram_conv_reference
from imbdyn.ops.class_moments import accumulator_dtype


@dataclass(frozen=True)
class Case:
    """A convolution by its numbers; inputs and output gradients follow from them and the seed."""

    spatial: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    images: int = 6
    groups: int = 1
    inputs_per_group: int = 3
    outputs_per_group: int = 4
    num_classes: int = 3
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    ignored: bool = False
    cut: int = 0
    """Places that the output gradients lack at the end of each dimension."""
    special: str = ""
    """Numbers of `special_value` that every fiftieth element is replaced by."""
    seed: int = 0

    def out(self) -> list[int]:
        return [
            (n + b + a - d * (k - 1) - 1) // s + 1 - self.cut
            for n, (b, a), k, s, d in zip(
                self.spatial, self.padding, self.kernel_size, self.stride, self.dilation, strict=True
            )
        ]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        random = torch.Generator().manual_seed(self.seed)

        def images(channels: int, size: list[int]) -> Tensor:
            values = torch.randn(self.images, channels, *size, generator=random, dtype=torch.float64).to(self.dtype)
            for name in self.special.split():
                values[torch.rand(values.shape, generator=random) < 0.02] = special_value(name, self.dtype)
            if self.layout == "channels last":
                return values.movedim(1, -1).contiguous().movedim(-1, 1)
            if self.layout == "every other":
                return values.repeat_interleave(2, -1).repeat_interleave(2, 0)[::2, ..., ::2]
            if self.layout == "expanded":
                return values[:1].expand(values.shape)
            return values

        x = images(self.groups * self.inputs_per_group, list(self.spatial))
        d = images(self.groups * self.outputs_per_group, self.out())
        labels = torch.randint(0, self.num_classes, (self.images,), generator=random)
        if self.ignored:
            labels[::4] = -100
        return x, d, labels


def run(
    case: Case, x: Tensor, d: Tensor, labels: Tensor, *, ignore_index: int = -100, sample_norms: bool = True
) -> ClassGram:
    return class_gram_conv(
        x,
        d,
        labels,
        case.num_classes,
        case.kernel_size,
        stride=case.stride,
        padding=case.padding,
        dilation=case.dilation,
        groups=case.groups,
        ignore_index=ignore_index,
        sample_norms=sample_norms,
    )


def before(case: Case) -> list[int]:
    return [b for b, _ in case.padding]


def weight_gradients(case: Case, x: Tensor, d: Tensor) -> list[Tensor]:
    """Torch's own weight gradient of each image."""
    padded = pad_reached(x, d.shape[2:], case.kernel_size, case.stride, before(case), case.dilation)
    nothing = [0] * len(case.stride)
    shape = (d.shape[1], case.inputs_per_group, *case.kernel_size)
    return [
        torch.ops.aten.convolution_backward(
            d[u : u + 1], padded[u : u + 1], x.new_empty(shape), None,
            case.stride, nothing, case.dilation, False, nothing, case.groups, [False, True, False],
        )[1].flatten()
        for u in range(len(x))
    ]  # fmt: skip


def check(case: Case) -> None:
    x, d, labels = case.tensors()
    arguments = (case.num_classes, case.kernel_size, case.stride, before(case), case.dilation, case.groups)
    results = {
        "chosen way": run(case, x, d, labels),
        "portable": class_gram_conv_portable(x, d, labels, *arguments, -100),
    }
    if _extension.kernels is not None:
        geometry = (case.num_classes, case.kernel_size, case.stride, before(case), case.dilation)
        results["sliding"] = sliding_gram(x, d, labels, *geometry, case.groups, -100, True)
        if case.groups == 1 and x.numel() * d.numel():
            results["unfolded"] = unfolded_gram(x, d, labels, *geometry, -100, True)
    compare(results, case, x, d, labels)


def compare(results: dict[str, tuple[Tensor, ...]], case: Case, x: Tensor, d: Tensor, labels: Tensor) -> None:
    arguments = (case.num_classes, case.kernel_size, case.stride, before(case), case.dilation, case.groups)
    oracle = class_gram_conv_reference(x, d, labels, *arguments)
    dtype = accumulator_dtype(case.dtype)
    samples = weight_gradients(case, x.to(dtype), d.to(dtype))
    size = len(samples[0]) if samples else 1
    gradient = torch.zeros(case.num_classes, size, dtype=dtype)
    plain_norms, length = torch.zeros(case.num_classes, dtype=dtype), torch.zeros(case.num_classes, dtype=torch.float64)
    # Places may cancel: the terms of a number of the gradient are as large as if all of them pointed one way.
    absolute = weight_gradients(case, x.double().abs(), d.double().abs())
    for u, c in enumerate(labels.tolist()):
        if c >= 0:
            gradient[c] += samples[u]
            plain_norms[c] += samples[u].square().sum()
            length[c] += absolute[u].norm()
    if case.dtype == torch.float64:
        length *= 2  # the oracle, which is float64 too, rounds as much
    plain = (gradient @ gradient.T, plain_norms)
    length.nan_to_num_(posinf=0)
    for who, got in results.items():
        magnitudes = (length[:, None] * length, length.square())
        for name, one, expected, rough, magnitude in zip(
            ClassGram._fields, got, oracle, plain, magnitudes, strict=True
        ):
            finite = where_finite(f"{who} {name}", one, expected)
            assert_accurate(f"{who} {name}", finite, expected, rough, magnitude, case.dtype)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dimensions = draw(st.sampled_from([1, 2, 2, 3]))

    def each(values: list[int]) -> tuple[int, ...]:
        return tuple(draw(st.sampled_from(values)) for _ in range(dimensions))

    kernel_size, stride, dilation = each([1, 2, 3]), each([1, 1, 2, 3]), each([1, 1, 2])
    padding = tuple(zip(each([0, 1, 2]), each([0, 1, 3]), strict=True))
    # At least one place, or none at all.
    spatial = tuple(
        max(1, d * (k - 1) + 1 - b - a) + draw(st.sampled_from([0, 1, 5, 8]))
        for k, d, (b, a) in zip(kernel_size, dilation, padding, strict=True)
    )
    inputs, outputs, groups = draw(
        st.sampled_from([(3, 4, 1), (1, 1, 1), (5, 17, 1), (16, 8, 1), (2, 3, 3), (1, 1, 9), (1, 1, 40), (1, 2, 5)])
    )
    return Case(
        spatial,
        kernel_size,
        stride,
        padding,
        dilation,
        images=draw(st.sampled_from([0, 1, 2, 5, 9])),
        groups=groups,
        inputs_per_group=inputs,
        outputs_per_group=outputs,
        num_classes=draw(st.sampled_from([1, 3, 20])),
        dtype=draw(st.sampled_from(DTYPES)),
        layout=draw(st.sampled_from(["contiguous", "channels last", "every other", "expanded"])),
        ignored=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


@SETTINGS
@given(cases())
def test_matches_reference(case: Case) -> None:
    check(case)


needs_kernel = pytest.mark.skipif(_extension.kernels is None, reason=_extension.why_missing)
PLAIN = Case((9, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))


@pytest.mark.parametrize("inputs", [1, 3, 7, 8])
@pytest.mark.parametrize("outputs", [1, 3, 4, 5, 8, 9, 15, 16, 17, 33])
def test_matches_the_reference_at_tile_edges(inputs: int, outputs: int) -> None:
    check(replace(PLAIN, inputs_per_group=inputs, outputs_per_group=outputs))


@pytest.mark.parametrize("channels", [3, 4, 8, 15, 16, 17, 33])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_depthwise_matches_the_reference_at_panel_edges(channels: int, layout: str) -> None:
    check(replace(PLAIN, groups=channels, inputs_per_group=1, outputs_per_group=1, layout=layout, stride=(2, 1)))


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("groups", [1, 20])
def test_images_of_several_chunks_match_the_reference(groups: int, layout: str) -> None:
    channels = {1: (3, 5), 20: (1, 1)}[groups]
    case = replace(PLAIN, spatial=(37, 35), images=5, groups=groups, layout=layout)
    check(replace(case, inputs_per_group=channels[0], outputs_per_group=channels[1]))


def test_line_longer_than_a_chunk_matches_the_reference() -> None:
    check(Case((1500,), (3,), (1,), ((2, 0),), (2,), images=3))


@pytest.mark.parametrize("images", [1, 2, 3])
def test_fewer_images_than_threads_share_their_rows(images: int) -> None:
    check(replace(PLAIN, spatial=(20, 20), inputs_per_group=20, outputs_per_group=40, images=images, num_classes=2))


@pytest.mark.parametrize("cut", [1, 3])
def test_output_gradients_may_cover_a_part(cut: int) -> None:
    check(replace(PLAIN, cut=cut, stride=(1, 1)))
    check(replace(PLAIN, cut=cut, spatial=(19, 21), stride=(2, 2), kernel_size=(2, 2), padding=((0, 0), (0, 0))))


@needs_kernel
def test_sums_larger_than_the_scratch_memory_match_float64() -> None:
    # 12 classes of 300 * 600 * 9 numbers are 78 MB in float32
    case = replace(PLAIN, spatial=(4, 4), images=24, inputs_per_group=300, outputs_per_group=600, num_classes=12)
    x, d, labels = case.tensors()
    geometry = (12, case.kernel_size, case.stride, before(case), case.dilation)
    oracle = ClassGram(*sliding_gram(x.double(), d.double(), labels, *geometry, 1, -100, True))
    gram, norms = sliding_gram(x, d, labels, *geometry, 1, -100, True)
    # float32 products; the largest entries are about 1.6 million * 16 * 5
    torch.testing.assert_close(norms, oracle.sample_norm_sq, rtol=1e-5, atol=0)
    torch.testing.assert_close(gram, oracle.gram, rtol=1e-5, atol=1e2)


def test_kernel_of_one_tap_is_class_gram_of_the_pixels() -> None:
    case = replace(PLAIN, kernel_size=(1, 1), padding=((0, 0), (0, 0)))
    x, d, labels = case.tensors()
    rows = class_gram(
        *(t.flatten(2).mT.flatten(0, 1) for t in (x, d)),
        labels.repeat_interleave(63),
        3,
        torch.arange(6).repeat_interleave(63),
    )
    for got, expected in zip(run(case, x, d, labels), rows, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-3)  # float32 sums of 63 terms, squared


def test_transposed_convolution_is_a_convolution_with_the_roles_changed() -> None:
    w = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    y = F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)
    d = torch.randn_like(y)
    y.backward(d)
    gram, _ = class_gram_conv(d, x, torch.tensor([0, 1]), 2, (4, 4), stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    assert w.grad is not None
    torch.testing.assert_close(gram.sum(), w.grad.square().sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("groups", [1, 6])
def test_result_is_finite_exactly_where_the_reference_is(value: float, groups: int) -> None:
    case = replace(PLAIN, groups=groups, inputs_per_group=6 // groups, outputs_per_group=6 // groups)
    x, d, labels = case.tensors()
    d[0, 1, 4, 4] = value
    oracle = class_gram_conv_reference(x, d, labels, 3, (3, 3), (1, 1), (1, 1), (1, 1), groups)
    for got, expected in zip(run(case, x, d, labels), oracle, strict=True):
        assert torch.equal(got.isfinite(), expected.isfinite())


def test_sample_norms_that_are_not_wanted_are_nan_and_change_nothing_else() -> None:
    for groups in (1, 3):
        case = replace(PLAIN, groups=groups, inputs_per_group=1, outputs_per_group=1)
        x, d, labels = case.tensors()
        got = run(case, x, d, labels, sample_norms=False)
        assert bool(got.sample_norm_sq.isnan().all())
        torch.testing.assert_close(got.gram, run(case, x, d, labels).gram, rtol=1e-5, atol=1e-3)
        portable = class_gram_conv_portable(
            x, d, labels, 3, [3, 3], [1, 1], [1, 1], [1, 1], groups, -100, sample_norms=False
        )
        assert bool(portable[1].isnan().all())


def test_no_images_and_no_places_give_zeros() -> None:
    empty = torch.zeros(0, 3, 5)
    none = class_gram_conv(
        empty, empty, torch.zeros(0, dtype=torch.int64), 2, [1], stride=[1], padding=[0], dilation=[1]
    )
    places = class_gram_conv(
        torch.zeros(2, 3, 1), torch.zeros(2, 4, 0), torch.tensor([0, 1]), 2, [3], stride=[1], padding=[0], dilation=[1]
    )
    for result in (none, places):
        assert result.gram.count_nonzero() == result.sample_norm_sq.count_nonzero() == 0


def test_bad_label_is_an_error_that_names_the_image() -> None:
    for channels in (1, 200):  # both ways
        x = torch.zeros(3, channels, 4)
        with pytest.raises(ValueError, match=r"^labels\[2\] is 9: a label must be in 0\.\.4"):
            class_gram_conv(x, x, torch.tensor([0, -100, 9]), 5, [1], stride=[1], padding=[0], dilation=[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel_size": [3]}, r"kernel_size must have a positive number for each of 2 dimensions, got \[3\]"),
        ({"stride": [1, 0]}, r"stride must have a positive number for each of 2 dimensions, got \[1, 0\]"),
        ({"groups": 2}, "groups must divide the channels, got 2 for 3 and 4"),
        ({"padding": [1]}, r"padding must have a number or a pair for each of 2 dimensions, got \[1\]"),
        ({"padding": [0, 1]}, "grad_outputs may have 7 places in dimension 2, got 9"),
    ],
)
def test_geometry_that_does_not_fit_is_an_error_with_the_values(changed: dict[str, object], message: str) -> None:
    x, d, labels = PLAIN.tensors()
    geometry = {"kernel_size": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], **changed}
    with pytest.raises(ValueError, match=message):
        class_gram_conv(x, d, labels, 3, **geometry)  # type: ignore[arg-type]


def test_shapes_and_dtypes_that_do_not_fit_are_errors() -> None:
    x, d, labels = PLAIN.tensors()
    one = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}
    with pytest.raises(ValueError, match=r"inputs must be \[U, C_in, \*spatial\]"):
        class_gram_conv(x[0, 0], d, labels, 3, [3, 3], **one)
    with pytest.raises(ValueError, match=r"grad_outputs must be \[U, C_out, \*out\]"):
        class_gram_conv(x, d[:2], labels, 3, [3, 3], **one)
    with pytest.raises(TypeError, match=r"one dtype, got torch\.float32 and torch\.float64"):
        class_gram_conv(x, d.double(), labels, 3, [3, 3], **one)
    with pytest.raises(TypeError, match=r"floating dtype, got torch\.int64"):
        class_gram_conv(x.long(), d.long(), labels, 3, [3, 3], **one)
    with pytest.raises(ValueError, match=r"labels must be \[U\] with U=6"):
        class_gram_conv(x, d, labels[:4], 3, [3, 3], **one)
    with pytest.raises(TypeError, match=r"labels must be int64, got torch\.int32"):
        class_gram_conv(x, d, labels.int(), 3, [3, 3], **one)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        class_gram_conv(x, d, labels, 0, [3, 3], **one)
