"""What one launch for a whole model reads: where the parts of its tensors lie that programs sum."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.ops.parameter_norms.layout import NOT_GIVEN, Lists, lay_out_alike

#: int64 numbers of a chunk in the table: addresses of its parts of w, grad and previous, and in one number their
#: element count, types and alignment (csrc/cuda/parameter_norms_chunk.h).
COLUMNS = 4

#: Bytes of an element, by element type (csrc/common/arrays.h); the last is that of `NOT_GIVEN`.
_BYTES = np.array([8, 4, 2, 2, 0])

#: Elements of a chunk: enough chunks for all of a GPU, and few partial sums.
_SMALL_CHUNK, _LARGE_CHUNK, _LARGE_MODEL = 8192, 32768, 1 << 26

#: Alignment of the widest loads, in bytes.
_WIDEST = 16

#: Tables that are kept: a training loop has few sets of addresses, but more than one.
_MOST_KEPT = 8


@dataclass(frozen=True)
class Group:
    """Chunks, one behind the other in the table, that are read alike."""

    types: tuple[int, int, int]
    """Element types of w, grad and previous (csrc/common/arrays.h), or `NOT_GIVEN`."""
    aligned: bool
    """Whether all addresses are multiples of 16 bytes."""
    first: int
    chunks: int


@dataclass(frozen=True)
class Work:
    """The table of a call, on the host."""

    numbers: NDArray[np.int64]
    """`COLUMNS` of each chunk, then first and last + 1 chunk of each result: the tensors, then the rows."""
    groups: tuple[Group, ...]
    chunks: int


@dataclass(frozen=True)
class Table:
    """The table of a call, on the device."""

    work: Work
    on_device: Tensor
    on_host: Tensor
    """Where it was copied from, without waiting."""
    stream: int
    copied: torch.cuda.Event | None


def make_work(addresses: Sequence[Sequence[int]], types: Sequence[Sequence[int]], sizes: list[int], rows: int,
              num_rows: int) -> Work:  # fmt: skip
    """Return the work of tensors that lie alike.

    Args:
        addresses, types: of w, grad and previous, P each.
        sizes: elements of each of the P.
        rows: the parameter whose `num_rows` rows are results of their own, each of chunks of its own; -1 for none.
    """
    # A part is a tensor, or a row of the tensor of `rows`.
    tensor_of = np.arange(len(sizes))
    at = np.array(addresses, np.int64).reshape(3, -1)
    size = np.array(sizes, np.int64)
    type_of = np.array(types, np.int64).reshape(3, -1)
    if rows >= 0 and num_rows > 0:
        size[rows] //= num_rows
    step = _BYTES[type_of]
    aligned = (at % _WIDEST == 0).all(0)
    if rows >= 0 and num_rows > 0:
        aligned[rows] &= bool((size[rows] * step[:, rows] % _WIDEST == 0).all())
        repeats = np.ones_like(tensor_of)
        repeats[rows] = num_rows
        tensor_of = np.repeat(tensor_of, repeats)
        at = at[:, tensor_of]
        at[:, rows : rows + num_rows] += np.arange(num_rows) * size[rows] * step[:, rows, None]
    # w, grad and previous of one kind lie together
    kind = ((type_of[0] * 5 + type_of[1] + 1) * 5 + type_of[2] + 1) * 2 + aligned
    order = np.argsort(kind[tensor_of], kind="stable")
    part_tensor, part_size = tensor_of[order], size[tensor_of[order]]

    chunk = _LARGE_CHUNK if int(sum(sizes)) >= _LARGE_MODEL else _SMALL_CHUNK
    # an empty part has a chunk too, which says what was not given
    chunks = np.maximum(-(-part_size // chunk), 1)
    last = chunks.cumsum()
    part = np.repeat(np.arange(len(chunks)), chunks)
    begin = (np.arange(len(part)) - (last - chunks)[part]) * chunk
    numbers = np.empty((len(part), COLUMNS), np.int64)
    numbers[:, :3] = (at[:, order[part]] + begin * step[:, part_tensor[part]]).T
    about = ((type_of + 1) << np.array([[32], [36], [40]])).sum(0) + (aligned.astype(np.int64) << 44)
    numbers[:, 3] = np.minimum(part_size[part] - begin, chunk) + about[part_tensor[part]]

    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ends = np.stack([last - chunks, last], 1)[place]  # of each part, in the order of the tensors
    results = np.empty((len(sizes) + (num_rows if rows >= 0 else 0), 2), np.int64)
    first_part = np.searchsorted(tensor_of, np.arange(len(sizes)))
    last_part = np.searchsorted(tensor_of, np.arange(len(sizes)), side="right") - 1
    results[: len(sizes), 0], results[: len(sizes), 1] = ends[first_part, 0], ends[last_part, 1]
    if rows >= 0:
        results[len(sizes) :] = ends[rows : rows + num_rows]

    kinds, first = np.unique(kind[part_tensor[part]], return_index=True)
    groups = []
    for k, begin_at, end_at in zip(kinds.tolist(), first.tolist(), [*first[1:].tolist(), len(part)], strict=True):
        three = (k // 50, k // 10 % 5 - 1, k // 2 % 5 - 1)
        groups.append(Group(three, k % 2 == 1, begin_at, end_at - begin_at))
    return Work(np.concatenate([numbers.ravel(), results.ravel()]), tuple(groups), len(part))


_KEPT: OrderedDict[object, Table] = OrderedDict()

_DTYPE, _SHAPE = attrgetter("dtype"), attrgetter("shape")


#: Layouts of a call's lists, without addresses, to their element types, where nothing is copied: gradients move.
_ALIKE: dict[object, list[list[int]]] = {}


def _lies_at(tensors: Sequence[Tensor | None]) -> tuple[tuple[int, ...], tuple[object, ...]]:
    """Return addresses, and all else that a table says of tensors.

    For hundreds of them, at each call: no Python a tensor but for None.
    """
    given = [t for t in tensors if t is not None]
    missing = () if len(given) == len(tensors) else tuple(i for i, t in enumerate(tensors) if t is None)
    layout = None
    if not all(map(Tensor.is_contiguous, given)):
        layout = tuple(map(_SHAPE, given)), tuple(map(Tensor.stride, given))
    sizes, dtypes = tuple(map(Tensor.numel, given)), tuple(map(_DTYPE, given))
    return tuple(map(Tensor.data_ptr, given)), (sizes, dtypes, layout, missing)


#: Tables that a CUDA graph reads, or copies each time it runs.
_IN_GRAPHS: list[Table] = []


def table_of(
    params: Sequence[Tensor], grads: Sequence[Tensor | None], previous: Sequence[Tensor | None], rows: int
) -> tuple[Table, Sequence[Sequence[Tensor | None]]]:
    """Return the table of a call on the device of `params`, and the tensors it points to, to be kept alive.

    It is copied from pinned memory without waiting, and only if the addresses are not those of a recent call.
    """
    device = params[0].device
    num_rows = params[rows].shape[0] if rows >= 0 else 0
    lists: Lists = (params, grads, previous)
    lie = [_lies_at(tensors) for tensors in lists]
    key: tuple[object, ...] | None = (device, rows, num_rows, *lie)
    # What was copied to lie alike lies somewhere else each time.
    if key not in _KEPT:
        layout = (rows, num_rows, *[about for _, about in lie])
        types = _ALIKE.get(layout, [])
        if not types:
            lists, types = lay_out_alike(lists, rows)
            if any(
                a is not b
                for one, other in zip(lists, (params, grads, previous), strict=True)
                for a, b in zip(one, other, strict=True)
            ):
                key = None
            else:
                if len(_ALIKE) >= _MOST_KEPT:
                    _ALIKE.clear()
                _ALIKE[layout] = types
    on_gpu = device.type == "cuda"
    stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
    capturing = on_gpu and torch.cuda.is_current_stream_capturing()
    table = _KEPT.pop(key, None)
    if table is None:
        addresses = [[0 if t is None else t.data_ptr() for t in tensors] for tensors in lists]
        work = make_work(addresses, types, [w.numel() for w in params], rows, num_rows)
        on_host = torch.from_numpy(work.numbers)
        copied = None
        if on_gpu:
            on_host = on_host.pin_memory()
            on_device = on_host.to(device, non_blocking=True)
            if not capturing:
                copied = torch.cuda.Event()
                copied.record()
        else:
            on_device = on_host
        table = Table(work, on_device, on_host, stream, copied)
    elif not capturing and table.stream != stream and table.copied is not None:
        # While capturing nobody waits for what was before: whoever captures has synchronized.
        torch.cuda.current_stream(device).wait_event(table.copied)
    if capturing:
        _IN_GRAPHS.append(table)
    if key is not None and (not capturing or table.copied is not None):  # a copy only captured has not been made
        _KEPT[key] = table
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    return table, lists


__all__ = ["COLUMNS", "NOT_GIVEN", "Group", "Table", "Work", "make_work", "table_of"]
