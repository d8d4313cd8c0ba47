# Addresses are those of Tensor.data_ptr(), strides count elements, `type` is a number of _extension.ELEMENT_TYPES.
# Those that take labels return -1, or the first row whose label is neither a class nor ignore_index.
from collections.abc import Sequence
from typing import Any

compiler: str
has_cuda: bool

def active_isa() -> str: ...
def available_isas() -> list[str]: ...
def class_moments(
    features: int,
    type: int,
    rows: int,
    columns: int,
    row_stride: int,
    column_stride: int,
    labels: int,
    label_stride: int,
    num_classes: int,
    ignore_index: int,
    count: int,
    mean: int,
    m2: int,
    threads: int,
    /,
) -> int: ...
def class_logits(
    logits: int,
    type: int,
    rows: int,
    num_classes: int,
    row_stride: int,
    column_stride: int,
    labels: int,
    label_stride: int,
    ignore_index: int,
    sums: int,
    threads: int,
    /,
) -> int: ...

# `samples`, and the addresses of results that are not wanted, may be 0. `way` is a number of csrc/cpu/class_gram.h.
def class_gram(
    type: int,
    rows: int,
    inputs: int,
    input_columns: int,
    input_row_stride: int,
    input_column_stride: int,
    grads: int,
    grad_columns: int,
    grad_row_stride: int,
    grad_column_stride: int,
    labels: int,
    label_stride: int,
    num_classes: int,
    ignore_index: int,
    samples: int,
    sample_stride: int,
    way: int,
    gram: int,
    sample_norm_sq: int,
    bias_gram: int,
    bias_sample_norm_sq: int,
    threads: int,
    /,
) -> int: ...

# Sizes and strides of tensors [samples, channels, ...] with one to three dimensions, of which each has a number in
# `kernel`, `stride`, `padding` and `dilation`.
def class_gram_convolution(
    type: int,
    inputs: int,
    input_sizes: Sequence[int],
    input_strides: Sequence[int],
    grads: int,
    grad_sizes: Sequence[int],
    grad_strides: Sequence[int],
    labels: int,
    label_stride: int,
    num_classes: int,
    ignore_index: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    gram: int,
    sample_norm_sq: int,
    threads: int,
    /,
) -> int: ...

# Seven numbers of `table` a parameter: address and type of weight, grad and previous (type -1: not given),
# and their element count. `measured` is the index of the parameter whose `rows` rows are measured, or -1.
def parameter_norms(table: list[int], measured: int, rows: int, out: int, rows_out: int, threads: int, /) -> None: ...

# Sizes and strides of units [U, C, P]: `mean` and `variance` [C] are float64, or 0.
def norm_gradients(
    sizes: Sequence[int],
    input: int,
    input_type: int,
    input_strides: Sequence[int],
    grads: int,
    grad_type: int,
    grad_strides: Sequence[int],
    num_groups: int,
    across_units: bool,
    mean: int,
    variance: int,
    eps: float,
    weight: int,
    bias: int,
    threads: int,
    /,
) -> None: ...

# Of units [U, L, D].
def norm_gradients_rows(
    sizes: Sequence[int],
    input: int,
    input_type: int,
    input_strides: Sequence[int],
    grads: int,
    grad_type: int,
    grad_strides: Sequence[int],
    centred: bool,
    eps: float,
    weight: int,
    bias: int,
    threads: int,
    /,
) -> None: ...

# Only where has_cuda is True. Addresses are the device's; the calls return before their kernels have run.
def class_moments_cuda_bytes(rows: int, columns: int, num_classes: int, type: int, /) -> int: ...

# `memory` has as many bytes as the function above says. `fresh`: what count, mean and m2 hold does not matter.
def class_moments_cuda(
    features: int,
    type: int,
    rows: int,
    columns: int,
    row_stride: int,
    column_stride: int,
    labels: int,
    label_stride: int,
    num_classes: int,
    ignore_index: int,
    count: int,
    mean: int,
    m2: int,
    fresh: bool,
    memory: int,
    stream: int,
    /,
) -> None: ...

# 2 to 128 classes, logits contiguous. `shared_bytes`: the shared memory of a multiprocessor.
def class_logits_cuda_bytes(rows: int, num_classes: int, type: int, processors: int, shared_bytes: int, /) -> int: ...

# `memory` has as many bytes as the function above says.
def add_class_logits_cuda(
    sums: int,
    logits: int,
    type: int,
    rows: int,
    labels: int,
    label_stride: int,
    num_classes: int,
    ignore_index: int,
    processors: int,
    shared_bytes: int,
    memory: int,
    stream: int,
    /,
) -> None: ...

# The table is that of csrc/cuda/parameter_norms.h, `partial` memory for four float64 a chunk.
def parameter_norms_cuda(
    table: int, chunks: int, tensors: int, rows: int, partial: int, out: int, rows_out: int, stream: int, /
) -> None: ...

# The rows of one commit, as imbdyn/trace/_commit_rows.py has them in Python.
class CommitRows:
    # A table: where its nodes and buffers lie in `metadata`, and name, kind (a number of csrc/trace/commit.h) and
    # whether it is required of each column. Then the types numpy.ndarray, numpy.ma.MaskedArray, Nullable and Names.
    def __init__(
        self,
        record: int,
        metadata: bytes,
        body_length_at: int,
        tables: list[tuple[int, int, list[tuple[str, int, bool]]]],
        array: type,
        masked: type,
        nullable: type,
        names: type,
        /,
    ) -> None: ...
    @property
    def record(self) -> int: ...
    @property
    def rows(self) -> int: ...
    def append(self, table: int, columns: dict[str, object], /) -> bool: ...
    def append_cells(self, table: int, rows: int, cells: list[Any], /) -> None: ...
    def encode(self) -> bytes: ...
    def begin_next(self) -> None: ...
    def clear(self) -> None: ...
