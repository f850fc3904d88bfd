"""External files that an ONNX graph refers to; an untrusted graph may name any file.

The base installation does not include the onnx package, so this module parses the few fields that lead to a tensor's external
data (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3, with protobuf's encoding,
https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reviewguard.errors import BundleError

#: For each message type, the fields to follow, with the type that they contain.
_FIELDS: Final = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_DEEPEST: Final = 64


def external_files(graph: Path) -> set[str]:
    """Locations of external data, as named in a graph.

    Raises:
        BundleError: If the file is not an ONNX graph.
    """
    if not graph.stat().st_size:
        raise BundleError(f"{graph} is empty; it is not an ONNX graph")
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return set(_locations(data, 0, len(data), "model", 0))
        except (IndexError, ValueError) as error:
            raise BundleError(f"{graph} is not an ONNX graph: {error}") from error


def _locations(data: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("its messages are nested too deeply")
    entry: dict[str, str] = {}
    for number, first, last in _fields(data, start, end):
        inner = _FIELDS[kind].get(number)
        if inner in ("key", "value"):
            entry[inner] = data[first:last].decode("utf-8", "replace")
        elif inner is not None:
            yield from _locations(data, first, last, inner, depth + 1)
    if entry.get("key") == "location":
        yield entry.get("value", "")


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field."""
    place = start
    while place < end:
        tag, place = _varint(data, place)
        wire = tag & 7
        if wire == _VARINT:
            _, place = _varint(data, place)
        elif wire == _LENGTH:
            length, place = _varint(data, place)
            if place + length > end:
                raise ValueError("a field is longer than the message that contains it")
            yield tag >> 3, place, place + length
            place += length
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"unsupported wire type {wire}")
    if place != end:
        raise ValueError("a field is longer than the message that contains it")


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    """Decode a variable-length integer, and return it with the offset of the next byte."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("an integer of more than ten bytes")
