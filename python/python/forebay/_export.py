"""The scalars of event files, read back: for ``SummaryWriter.export_scalars_to_json``."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

#: The most scalars in memory, of 24 bytes each.
MAX_POINTS = 1 << 18

#: The most bytes of an event that is looked at. A scalar has a few hundred; what is larger is an image or the like.
MAX_EVENT = 1 << 20

#: A scalar: its moment, its step and its value.
_POINT = struct.Struct("<dqd")

#: Where the points before these are, and how many bytes these have.
_HEAD = struct.Struct("<qq")


def export(
    path: str | os.PathLike[str],
    folder: os.PathLike[str] | None,
    shown: str,
    has_begun: Callable[[str], bool],
    exported: dict[str, int],
) -> None:
    """Writes the scalars that a writer has added to a folder to a file of JSON, by their key.

    A file of events has all keys by turns, and JSON has one after the other. So the points wait in a temporary file, each key's in a chain
    of pieces: memory is taken for ``MAX_POINTS`` of them, and for the keys.

    Args:
        path: The file of JSON.
        folder: The folder of the run, or ``None`` if it has none.
        shown: That folder, as keys have it.
        has_begun: Tells whether the writer began a file, by its path without symbolic links.
        exported: How many bytes of each file are left out. They are set to what was read.
    """
    ends: dict[str, int] = {}
    last: dict[str, int] = {}
    rows: dict[str, bytearray] = {}
    with tempfile.TemporaryFile() as spool, open(path, "w", encoding="utf-8") as out:
        count = 0
        for file, sub_run in _files(folder, has_begun):
            for tag, point in _scalars(file, exported, ends):
                rows.setdefault(_key(shown, sub_run, tag), bytearray()).extend(point)
                count += 1
                if count % MAX_POINTS == 0:
                    _put(spool, rows, last)
        _put(spool, rows, last)
        out.write("{")
        for number, (key, place) in enumerate(last.items()):
            points = (json.dumps(point) for point in _points(spool, place))
            out.write(f"{', ' if number else ''}{json.dumps(key)}: [{next(points)}")
            out.writelines(f", {point}" for point in points)
            out.write("]")
        out.write("}")
    exported.update(ends)


def _files(folder: os.PathLike[str] | None, has_begun: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """Returns the files of a writer below a folder, oldest first, each with the name of its sub-run."""
    for parent, folders, names in os.walk(folder) if folder is not None else ():
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if name.startswith("events.out.tfevents.") and has_begun(os.path.realpath(path)):
                yield path, os.path.relpath(parent, folder)


def _key(folder: str, sub_run: str, tag: str) -> str:
    """Returns the key of a scalar: its tag, or for one of a sub-run the path that tensorboardX would write it to."""
    if sub_run == os.curdir:
        return tag
    prefix = tag.replace("/", "_") + "_"
    parts = (tag, sub_run[len(prefix) :]) if sub_run.startswith(prefix) else (sub_run, tag)
    return os.path.join(folder, *parts)


def _put(spool: IO[bytes], rows: dict[str, bytearray], last: dict[str, int]) -> None:
    """Appends points to the temporary file, and notes where the last ones of each key are."""
    for key, row in rows.items():
        place = spool.tell()
        spool.write(_HEAD.pack(last.get(key, -1), len(row)) + row)
        last[key] = place
    rows.clear()


def _points(spool: IO[bytes], place: int) -> Iterator[tuple[float, int, float]]:
    """Returns the points of a key, of which the last ones are at that place."""
    pieces = []
    while place >= 0:
        spool.seek(place)
        pieces.append(place)
        place, _ = _HEAD.unpack(spool.read(_HEAD.size))
    for each in reversed(pieces):
        spool.seek(each)
        _, length = _HEAD.unpack(spool.read(_HEAD.size))
        yield from _POINT.iter_unpack(spool.read(length))


def _scalars(path: str, begins: dict[str, int], ends: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Returns the tags and the points of a file, but for its begin, and notes up to where it has whole events."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = begins.get(path, 0)
        file.seek(end)
        while True:
            ends[path] = end
            head = file.read(12)
            if len(head) < 12:
                return
            # A length, its checksum, the event, its checksum.
            length = int.from_bytes(head[:8], "little")
            end += 16 + length
            if end > size:
                return
            if length <= MAX_EVENT:
                yield from _of_event(file.read(length))
            file.seek(end)


def _of_event(event: bytes) -> Iterator[tuple[str, bytes]]:
    """Returns the tags and the points of the scalars of an encoded ``Event``."""
    walltime, step, summaries = 0.0, 0, []
    for field, value in _fields(event):
        if field == 1:
            (walltime,) = struct.unpack("<d", value)
        elif field == 2:
            step = int.from_bytes(value, "little", signed=True)
        elif field == 5:
            summaries.append(value)
    for summary in summaries:
        for _, value in _fields(summary):
            tag, number = _of_value(value)
            if number is not None:
                yield tag, _POINT.pack(walltime, step, number)


def _of_value(value: bytes) -> tuple[str, float | None]:
    """Returns the tag of an encoded ``Value``, and its number if it is a scalar."""
    if len(value) > 6 and value[0] == 0x0A and value[1] < 0x80 and len(value) == value[1] + 7 and value[-5] == 0x15:
        # A short tag and a plain number, as nearly all are.
        return value[2:-5].decode("utf-8", "replace"), struct.unpack("<f", value[-4:])[0]
    tag, number, tensor, is_scalar = "", None, None, False
    for field, part in _fields(value):
        if field == 1:
            tag = part.decode("utf-8", "replace")
        elif field == 2:
            (number,) = struct.unpack("<f", part)
        elif field == 8:
            tensor = dict(_fields(part))
        elif field == 9:
            plugins = (dict(_fields(data)) for field, data in _fields(part) if field == 1)
            is_scalar |= any(plugin.get(1) == b"scalars" for plugin in plugins)
    if tensor is not None and is_scalar:
        # The fields of numbers of 32 bits and of 64, by the type of the tensor; or all of its bytes.
        place, form = {1: (5, "<f"), 2: (6, "<d")}.get(int.from_bytes(tensor.get(1, b""), "little"), (0, "<q"))
        found = tensor.get(place) or tensor.get(4, b"")
        if place and len(found) == struct.calcsize(form):
            (number,) = struct.unpack(form, found)
    return tag, number


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Returns the numbers and the bytes of the fields of an encoded message; of an integer, its 8 bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, at = _varint(message, at)
            if key & 7 == 0:
                yield key >> 3, size.to_bytes(10, "little")[:8]
                continue
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns a number of one byte or more, and what is behind it."""
    number, shift = 0, 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
