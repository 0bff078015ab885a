"""Event files of which bits have changed: they stop nothing, and what is left of them is shown."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from tensorboardX.crc32c import crc32c

from genjax.io import events
from genjax.io.events import read_events
from genjax.io.writer import Writer
from tests.io.test_writer import curve, log

CURVE = [(step, 1.0) for step in range(10, 60, 10)]


@pytest.fixture
def run(tmp_path):
    """A work folder and its event file."""
    log(tmp_path, None, range(10, 60, 10), 1.0)
    (path,) = (tmp_path / "tensorboard").iterdir()
    return tmp_path, path


def starts(data: bytes) -> list[int]:
    """Where the records begin; the first says what version the file is of, then come scalars, image, text, scalars."""
    found = [0]
    while found[-1] < len(data):
        found.append(found[-1] + 16 + struct.unpack_from("<Q", data, found[-1])[0])
    return found[:-1]


def flip(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


# In a record: its length, the checksum of that, the event and its checksum.
@pytest.mark.parametrize("at", [0, 7, 9, 13, 20, -1])
@pytest.mark.parametrize("which", [0, 4, 13])
def test_a_flipped_bit_costs_one_record_and_no_scalar(run, caplog, at, which):
    folder, path = run
    before = path.read_bytes()
    begins = starts(before)
    flip(path, begins[which] + at if at >= 0 else begins[which + 1] - 1)
    damaged = path.read_bytes()
    Writer(folder, 50).close()
    assert curve(folder, "train/loss") == CURVE
    (kept,) = folder.glob("*.corrupt")
    assert kept.read_bytes() == damaged and "tfevents" not in kept.name
    (line,) = caplog.messages
    assert f"{path} is damaged (" in line and line.endswith(f"it is kept in {kept}") and "\n" not in line
    left = {(event.step, value.tag) for _, event in read_events(path.read_bytes()) for value in event.summary.value}
    there = {(event.step, value.tag) for _, event in read_events(before) for value in event.summary.value}
    assert left <= there and len(left) >= len(there) - 1
    caplog.clear()
    Writer(folder, 50).close()  # it is mended
    assert not caplog.messages and len(list(folder.glob("*.corrupt"))) == 1


def test_what_a_power_cut_leaves_is_mended(run, caplog):
    folder, path = run
    data = path.read_bytes()
    for end in (bytes(5000), os.urandom(5000)):
        path.write_bytes(data[: starts(data)[-4]] + end)
        Writer(folder, 50).close()
        assert curve(folder, "train/loss") == CURVE
    assert len(caplog.messages) == 2 and len(list(folder.glob("*.corrupt*"))) == 2
    path.write_bytes(b"\0" * 100)
    Writer(folder, 50).close()
    assert curve(folder, "train/loss") == CURVE


def test_a_record_that_is_no_event_is_left_out(run, caplog):
    folder, path = run
    head, body = struct.pack("<Q", 5), b"\xff" * 5
    path.write_bytes(path.read_bytes() + head + events._packed(head) + body + events._packed(body))
    Writer(folder, 50).close()
    assert curve(folder, "train/loss") == CURVE and len(caplog.messages) == 1


def test_a_cut_end_is_no_damage(run, caplog):
    folder, path = run
    path.write_bytes(path.read_bytes()[:-9])
    Writer(folder, 40).close()
    assert curve(folder, "train/loss") == CURVE[:-1] and not caplog.messages and not list(folder.glob("*.corrupt"))


def test_lost_scalars_stay_lost_where_nothing_says_what_they_were(run):
    folder, path = run
    flip(path, starts(path.read_bytes())[4] + 20)
    (folder / "metrics.jsonl").unlink()
    Writer(folder, 50).close()
    assert curve(folder, "train/loss") == [point for point in CURVE if point[0] != 20]


@pytest.mark.parametrize("size", [0, 1, 8, 4095, 4096, 4097, 70_001, 1 << 20])
def test_checksum_in_pieces_is_that_of_the_whole(size):
    data = np.random.default_rng(size).bytes(size)
    assert events._checksum(data) == crc32c(data)
    if size:
        assert events._checksum(data[:-1] + bytes([data[-1] ^ 1])) != crc32c(data)
