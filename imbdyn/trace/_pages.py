"""Check the page headers of a column chunk before Arrow decompresses its pages.

The sizes in a Parquet footer are what the file says of itself; what a decoder allocates follows the headers of the
pages. This walks over them, so that a page that would grow to gigabytes is refused while it is still small.
"""

from __future__ import annotations

from imbdyn.trace._damage import UntrustedError

#: Numbers and lists of Thrift's compact protocol are at most so deep and long in a page header.
_MAX_DEPTH, _MAX_ITEMS = 8, 1024

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

# Fields of PageHeader in parquet.thrift; num_values is the first field of each kind's own header.
_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE, _DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 2, 3, 5, 7, 8
_NUM_VALUES = 1


def check_pages(chunk: memoryview, rows: int, uncompressed_bytes: int) -> None:
    """Check that the pages of a column chunk hold `rows` values and grow to at most `uncompressed_bytes`.

    Raises: UntrustedError if they do not, or are no pages.
    """
    position = values = total = 0
    while position < len(chunk):
        header = _Thrift(chunk, position)
        fields = header.struct()
        compressed, uncompressed = fields.get(_COMPRESSED_SIZE), fields.get(_UNCOMPRESSED_SIZE)
        if not isinstance(compressed, int) or not isinstance(uncompressed, int) or min(compressed, uncompressed) < 0:
            raise UntrustedError("a page has no size")
        total += uncompressed
        for kind in (_DATA_PAGE, _DATA_PAGE_V2, _DICTIONARY_PAGE):
            page = fields.get(kind)
            count = page.get(_NUM_VALUES, 0) if isinstance(page, dict) else 0
            # An entry of a dictionary has at least the four bytes of a length.
            if not isinstance(count, int) or count < 0 or (kind == _DICTIONARY_PAGE and 4 * count > uncompressed):
                raise UntrustedError(f"a page of {uncompressed} bytes says that it holds {count} values")
            values += 0 if kind == _DICTIONARY_PAGE else count
        position = header.position + compressed
    if position != len(chunk) or values != rows or total > uncompressed_bytes:
        raise UntrustedError(
            f"its pages hold {values} values in {total} bytes, and its footer says {rows} in {uncompressed_bytes}"
        )


class _Thrift:
    """Reads a struct of Thrift's compact protocol; text and the items of lists are passed over."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data = data
        self.position = position

    def struct(self, depth: int = 0) -> dict[int, object]:
        if depth > _MAX_DEPTH:
            raise UntrustedError("a page header is nested too deep")
        fields: dict[int, object] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._signed()
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _DOUBLE:
            self._skip(8)
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind in (_LIST, _SET):
            size = self._byte()
            length = size >> 4 if size >> 4 < 15 else self._varint()
            if length > _MAX_ITEMS:
                raise UntrustedError("a page header has too long a list")
            for _ in range(length):
                self._value(size & 15, depth + 1)
        elif kind == _STRUCT:
            return self.struct(depth + 1)
        else:
            raise UntrustedError("a page header is no Thrift")
        return None

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise UntrustedError("a page header is cut short")
        self.position += 1
        return self._data[self.position - 1]

    def _skip(self, length: int) -> None:
        if length > len(self._data) - self.position:
            raise UntrustedError("a page header is cut short")
        self.position += length

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise UntrustedError("a page header has too long a number")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
