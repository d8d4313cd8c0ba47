"""The rows of a trace, read by the words of the format and by nothing of imbdyn: what the tests compare with."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def read_journal(run: Path) -> dict[int, list[Row]]:
    """Return the commits of each rank: a row has the record number and a list of rows a table."""
    commits: dict[int, list[Row]] = {}
    for path in sorted((run / "_journal").glob("*.journal")):
        data = path.read_bytes()
        stream, position = b"", 8
        if data[:8] != b"IMBDYNJ1":
            continue
        while position + 8 <= len(data):
            length, crc = struct.unpack("<II", data[position : position + 8])
            payload = data[position + 8 : position + 8 + length]
            if len(payload) < length or zlib.crc32(payload) != crc:
                break
            stream += payload
            position += 8 + length
        if stream:
            commits.setdefault(int(path.name[:4]), []).extend(pa.ipc.open_stream(stream).read_all().to_pylist())
    return commits


def read_table(run: Path, table: str) -> list[Row]:
    """Return the rows of parts and journal that no resumed run has superseded."""
    rows: list[Row] = []
    resumed = json.loads((run / "run.json").read_bytes()).get("resumed", [])
    sealed: dict[int, int] = {}
    for path in sorted((run / table).glob("part-*.parquet")):
        rank, sequence, crc = re.fullmatch(r"part-(\d{4})-(\d{8})-([0-9a-f]{8})\.parquet", path.name).groups()
        data = path.read_bytes()
        footer = data[-8 - struct.unpack("<I", data[-8:-4])[0] :]
        assert zlib.crc32(footer) == int(crc, 16), path
        part = pq.ParquetFile(pa.BufferReader(data))
        superseding = [r["step"] for r in resumed if int(sequence) < r["parts"].get(f"{table}/{rank}", 0)]
        rows += [row for row in part.read().to_pylist() if not superseding or row["step"] <= min(superseding)]
        sealed[int(rank)] = max(sealed.get(int(rank), 0), int(part.metadata.metadata[b"imbdyn.seals"]))
    for rank, commits in read_journal(run).items():
        for commit in commits:
            if commit["record"] > sealed.get(rank, 0):
                rows += commit[table] or []
    return rows
