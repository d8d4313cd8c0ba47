"""Write rows as a TensorBoard event file: a scalar a value, its tag made of the table, the column and the key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

import pyarrow as pa


def write_tensorboard(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO, wall_time: float) -> None:
    """Write an event file with the tags TABLE/COLUMN/KEY..., such as `classes/loss/test/3`.

    KEY... are the values of the table's key without the step, in the key's order. Null has no event. Values are
    float32, as TensorBoard's scalars are; every event has the same `wall_time`, since a trace tells none of its rows.
    """
    # tensorboard is an extra: who does not export to it does not need it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    about = {name.decode(): value.decode() for name, value in schema.metadata.items()}
    table = about["imbdyn.table"]
    key = [name for name in ("run", *about["imbdyn.key"].split(",")) if name != "step" and name in schema.names]
    values = [
        field.name
        for field in schema
        if field.name not in (*key, "step", "since_step") and not pa.types.is_string(field.type)
    ]
    writer = RecordWriter(sink)
    writer.write(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())
    for batch in batches:
        columns = batch.to_pydict()
        ends = ["/".join(map(str, names)) for names in zip(*(columns[name] for name in key), strict=True)]
        for row, step in enumerate(columns["step"]):
            scalars = [
                Summary.Value(tag=f"{table}/{name}/{ends[row]}" if ends else f"{table}/{name}", simple_value=value)
                for name in values
                if (value := columns[name][row]) is not None
            ]
            if scalars:
                event = Event(wall_time=wall_time, step=step, summary=Summary(value=scalars))
                writer.write(event.SerializeToString())
