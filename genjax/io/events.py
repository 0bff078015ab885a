"""TensorBoard's event files: read with their checksums, cut at a step, mended where bits of them have changed."""

from __future__ import annotations

import itertools
import logging
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.crc32c import CRC_TABLE, crc32c, crc_update
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from genjax.io.files import write_atomic

_HEAD = 12  # bytes before the event: its length and the checksum of that
_WINDOW = 1 << 20  # bytes searched at once for the next record
_ONES = 0xFFFFFFFF
_TABLE = np.array(CRC_TABLE, np.uint32)
_log = logging.getLogger(__name__)


def read_events(data: bytes, damaged: Callable[[str], None] = lambda why: None) -> Iterator[tuple[bytes, Any]]:
    """The whole records of an event file with the events in them; ends at one that a kill has cut short.

    A record is a length (8 bytes), its checksum (4), the event, its checksum (4).

    Args:
      data: of the file.
      damaged: is told of each record, or run of bytes between records, that is not as it was written; it is left out.
    """
    start = 0
    while start + _HEAD <= len(data):
        length, checksum = struct.unpack_from("<QI", data, start)
        if _masked(_checksum(data[start : start + 8])) != checksum:
            after = _next_record(data, start + 1)
            damaged(f"bytes {start} to {after} are no record")
            start = after
            continue
        end = start + _HEAD + length + 4
        if end > len(data):
            return
        event = _event(data[start + _HEAD : end - 4], *struct.unpack_from("<I", data, end - 4))
        if event is None:
            damaged(f"the record of bytes {start} to {end} is not as it was written")
        # The mark of an earlier resume carries the step after the one it resumed from; with the events it purged
        # gone it has nothing left to say.
        elif not event.HasField("session_log"):
            yield data[start:end], event
        start = end


def cut_events(
    folder: Path, last_kept: int, records: Sequence[Mapping[str, Any]]
) -> tuple[list[Path], list[tuple[int, list[str]]]]:
    """Drops events after a step from the event files of earlier sessions.

    A purge mark in the new file would only hide them, and not every reader honours it for text. What of a file is
    damaged is left out with a warning; the file as it was is kept in the folder above, where no TensorBoard reads it,
    and scalars that are in no file any more are written anew.

    Args:
      folder: of the files.
      last_kept: the step; -1 removes the files.
      records: of ``metrics.jsonl``, up to that step.

    Returns:
      The files that stay, and the steps with their tags that are in them.

    Raises:
      OSError, UserError: the folder cannot be written.
    """
    files = sorted(folder.glob("*tfevents*"))
    if last_kept < 0:
        for path in files:
            path.unlink()
        return [], []
    shown: list[tuple[int, list[str]]] = []
    damaged: list[tuple[Path, list[tuple[bytes, Any]]]] = []
    for path in files:
        data, why = path.read_bytes(), []
        events = [(record, event) for record, event in read_events(data, why.append) if event.step <= last_kept]
        shown += _tags(events)
        kept = b"".join(record for record, _ in events)
        if why:
            aside = _keep(path, data)
            more = f", and {len(why) - 1} more like it" if len(why) > 1 else ""
            _log.warning("%s is damaged (%s%s) and mended; as it was it is kept in %s", path, why[0], more, aside)
            damaged.append((path, events))
        if kept != data:
            write_atomic(path, kept)
    for path, events in damaged:
        lost = _lost(records, shown)
        shown += _tags(lost)
        write_atomic(path, _in_order([*events, *lost]))
    return files, shown


def _tags(events: Sequence[tuple[bytes, Any]]) -> list[tuple[int, list[str]]]:
    return [(event.step, [value.tag for value in event.summary.value]) for _, event in events]


def _keep(path: Path, data: bytes) -> Path:
    """Writes a damaged file into the folder above, under a name that TensorBoard doesn't look for; gives its path."""
    name = path.name.replace("tfevents", "damaged")
    paths = (path.parent.with_name(f"{name}.corrupt{i or ''}") for i in itertools.count())
    aside = next(aside for aside in paths if not aside.exists())
    write_atomic(aside, data)
    return aside


def _lost(records: Sequence[Mapping[str, Any]], shown: Sequence[tuple[int, list[str]]]) -> list[tuple[bytes, Any]]:
    """Events with the scalars of ``metrics.jsonl`` that are in no event file."""
    there: defaultdict[int, set[str]] = defaultdict(set)
    for step, tags in shown:
        there[step].update(tags)
    lost = []
    for record in records:
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        names = [name for name in numbers if name not in ("step", "time") and name not in there[record["step"]]]
        values = [Summary.Value(tag=name, simple_value=float(numbers[name])) for name in names]
        if values:
            when = numbers.get("time", 0.0)
            lost.append(_encoded(Event(step=record["step"], wall_time=when, summary=Summary(value=values))))
    return lost


def _in_order(events: list[tuple[bytes, Any]]) -> bytes:
    """The records by step, with the one that a file has to begin with in front."""
    if not any(event.HasField("file_version") for _, event in events):
        events = [_encoded(Event(file_version="brain.Event:2")), *events]
    return b"".join(record for record, _ in sorted(events, key=lambda pair: pair[1].step))


def _encoded(event: Any) -> tuple[bytes, Any]:
    data = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    return b"".join([head, _packed(head), data, _packed(data)]), event


def _packed(data: bytes) -> bytes:
    return struct.pack("<I", _masked(_checksum(data)))


def _event(data: bytes, checksum: int) -> Any | None:
    """The event in these bytes, None where they are others than were written."""
    if _masked(_checksum(data)) != checksum:
        return None
    try:
        return Event.FromString(data)
    except Exception:  # of protobuf, which is for tensorboardX to depend on
        return None


def _next_record(data: bytes, start: int) -> int:
    """Where, from ``start`` on, there is a length with its checksum; the end where there is none."""
    for begin in range(start, len(data) - _HEAD + 1, _WINDOW):
        piece = np.frombuffer(data[begin : begin + _WINDOW + _HEAD - 1], np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(piece, _HEAD)
        states = np.full(len(windows), _ONES, np.uint32)
        wanted = _masked(_advance(states, windows[:, :8]) ^ np.uint32(_ONES))
        found = np.flatnonzero(wanted == np.ascontiguousarray(windows[:, 8:]).view("<u4")[:, 0])
        if len(found):
            return begin + int(found[0])
    return len(data)


def _masked(checksum: Any) -> Any:
    """How a record holds its checksum: turned and shifted, because it may itself be among bytes that have one."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & _ONES


def _checksum(data: bytes) -> int:
    """CRC-32C. Much of it is done in pieces side by side, 20 times as fast as byte by byte.

    Every bit of the state after a piece is a sum of bits of the piece and of the state before it. So each piece is
    begun from zero, and what the state before it adds is found from what becomes of each bit over as many zeros.
    """
    length = int(len(data) ** 0.5)
    if length < 64:
        return crc32c(data)
    count = len(data) // length
    pieces = np.zeros([count + 32, length], np.uint8)
    pieces[:count] = np.frombuffer(data, np.uint8, count * length).reshape(count, length)
    states = np.zeros(count + 32, np.uint32)
    states[0] = _ONES
    states[count:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
    ends = _advance(states, pieces).tolist()
    state, over_zeros = ends[0], ends[count:]
    for end in ends[1:count]:
        for bit in range(32):
            if state >> bit & 1:
                end ^= over_zeros[bit]
        state = end
    return crc_update(state ^ _ONES, data[count * length :])


def _advance(states: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The states ``[K]`` of CRC-32C after the bytes ``[K, L]``, each after its row."""
    for column in np.ascontiguousarray(rows.T):
        states = _TABLE[(states ^ column) & 255] ^ (states >> 8)
    return states
