"""The files of a trace in an object store or HDFS: written whole, read, and confirmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from imbdyn.trace._format import run_crc32_holds
from imbdyn.trace._run_folder import read_record
from imbdyn.trace._store import filesystem_of, public_uri

#: What a store may raise: pyarrow's errors of networks and permissions, and of answers that make no sense.
STORE_ERRORS = (OSError, ValueError, pa.ArrowException)

#: Bytes that are sent, or received, at a time: what an upload keeps in memory.
_CHUNK = 4 << 20
#: So many of the last bytes of a file are read back: most parts whole, and of the largest the footer.
_CONFIRMED_BYTES = 256 << 10
#: Filesystems in which a file appears whole, when its upload is complete, and folders are but names.
_OBJECT_STORES = ("s3", "gcs", "abfs")


class Remote:
    """The place that a URI names. One thread at a time may use it."""

    def __init__(self, uri: str) -> None:
        #: What messages call the place; it holds no secrets.
        self.place = public_uri(uri)
        self._uri = uri
        self.renew()

    def renew(self, attempts: int | None = None) -> None:
        """Make the filesystem anew from the URI and the environment: credentials that have expired are read again.

        `attempts` is how often it makes a request that fails; see filesystem_of.
        """
        self._filesystem, self._root = filesystem_of(self._uri, attempts)

    def files(self) -> dict[str, int]:
        """Return the size of every file, by its path below the URI."""
        found = self._filesystem.get_file_info(fs.FileSelector(self._root, allow_not_found=True, recursive=True))
        return {info.path[len(self._root) + 1 :]: info.size for info in found if info.type == fs.FileType.File}

    def read_record(self, name: str) -> bytes | None:
        """Return run.json, or what a rank has to say of itself; None if there is none.

        Raises: OSError if it is damaged.
        """
        try:
            encoded = read_record(self._filesystem, f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        if not run_crc32_holds(encoded):
            raise OSError(f"{self.place}/{name} is damaged: its crc32 is another")
        return encoded

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to `target`, which must not exist."""
        with self._filesystem.open_input_stream(f"{self._root}/{name}") as file, target.open("xb") as copy:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)

    def write(self, name: str, source: BinaryIO) -> None:
        """Send what `source` holds. A reader sees all of it, or the old file, if any; what is cut short is not seen."""
        path = f"{self._root}/{name}"
        if self._filesystem.type_name in _OBJECT_STORES:
            self._send(source, path)
            return
        folder, _, base = path.rpartition("/")
        self._filesystem.create_dir(folder, recursive=True)
        temporary = f"{folder}/.{base}.tmp"
        self._send(source, temporary)
        try:
            self._filesystem.move(temporary, path)
        except OSError:  # HDFS gives no file the name of another
            self._filesystem.delete_file(path)
            self._filesystem.move(temporary, path)

    def holds(self, name: str, source: Path) -> bool:
        """Whether the store has a file of that name, with the size and the last bytes of `source`."""
        size = source.stat().st_size
        start = max(0, size - _CONFIRMED_BYTES)
        try:
            with source.open("rb") as local, self._filesystem.open_input_file(f"{self._root}/{name}") as file:
                if file.size() != size:
                    return False
                local.seek(start)
                file.seek(start)
                return local.read() == bytes(file.read(size - start))
        except FileNotFoundError:
            return False

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._filesystem.delete_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return

    def _send(self, source: BinaryIO, path: str) -> None:
        with self._filesystem.open_output_stream(path) as out:
            while chunk := source.read(_CHUNK):
                out.write(chunk)


def field_of(encoded: bytes | None, name: str) -> Any:
    """Return a field of a run.json whose checksum holds; None if there is no run.json, or no such field."""
    return None if encoded is None else json.loads(encoded).get(name)
