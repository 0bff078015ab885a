"""What else can befall a run, one fault after the other: signals, a second process, damage, failing storage."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from genjax.io.leftovers import REPLACED
from tests.cli.commands import Answer, checkpoint_steps, same_run
from tests.cli.storage import Storage, break_under, storage, why_not
from tests.drills.kills import logged
from tests.drills.runs import Started, arguments
from tests.drills.table import Row

FAMILY = "vae"
_Fault = tuple[str, Callable[[], None], str]  # name, how, and what it costs with {} for the steps
_STEPS = "steps since the last checkpoint: at most {}"


class _Run:
    """A run under faults, in a folder of a small file system where one can be had.

    Attributes:
      lost: the most steps that a fault of the present kind cost.
    """

    def __init__(self, folder: Path, disk: Storage | None, rng: random.Random):
        self.folder, self.disk, self.rng = folder, disk, rng
        self.lost = 0

    def start(self) -> Started:
        """A training, some way behind its first step."""
        started = Started(arguments(FAMILY, self.folder))
        while "first step after" not in started.out:
            if not started.running:
                raise AssertionError(started.answer())
            time.sleep(0.02)
        time.sleep(self.rng.uniform(0.1, 0.6))
        return started

    def kept(self) -> int:
        """The step that the next training goes on from, 0 without any; it may be one that was to be replaced."""
        names = [path.name.removesuffix(REPLACED) for path in (self.folder / "checkpoints").glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def count_lost(self) -> None:
        self.lost = max(self.lost, logged(self.folder)[-1]["step"] - self.kept())

    # Each fault raises AssertionError when the run does not answer as it should.

    def terminate(self) -> None:
        self._stop(signal.SIGTERM, 143)

    def interrupt(self) -> None:
        self._stop(signal.SIGINT, 130)

    def _stop(self, number: signal.Signals, status: int) -> None:
        started = self.start()
        started.process.send_signal(number)
        answer = started.answer()
        _expect(answer, status, "")
        assert f"interrupted by {number.name}: saved step {checkpoint_steps(self.folder)[-1]} of" in answer.out, answer
        self.count_lost()

    def interrupt_twice(self) -> None:
        started = self.start()
        started.process.send_signal(signal.SIGSTOP)  # so that both are there before it can act on the first
        for number in (signal.SIGINT, signal.SIGCONT, signal.SIGINT):
            started.process.send_signal(number)
        assert started.answer(30).status in (-signal.SIGINT, 130)
        self.count_lost()

    def second_process(self) -> None:
        first = self.start()
        try:
            first.process.send_signal(signal.SIGSTOP)  # or it might end before the second has begun
            answer = Started(arguments(FAMILY, self.folder)).answer()
            _expect(answer, 2, f"is in use by another training (process {first.process.pid} on ")
        finally:
            first.process.send_signal(signal.SIGCONT)
            first.process.send_signal(signal.SIGTERM)
        _expect(first.answer(), 143, "")

    def stale_lock(self) -> None:
        started = self.start()
        started.process.kill()
        started.answer()
        self.count_lost()
        (self.folder / ".lock").write_text("1\n")  # a process that lives, but holds no lock

    def truncate(self) -> None:
        self._damage(lambda data: data[: len(data) // 2])

    def flip(self) -> None:
        self._damage(self._flipped)

    def _flipped(self, data: bytes) -> bytes:
        changed = bytearray(data)
        changed[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        return bytes(changed)

    def _damage(self, change: Callable[[bytes], bytes]) -> None:
        self.terminate()
        earlier, latest = checkpoint_steps(self.folder)[-2:]
        files = [path for path in (self.folder / "checkpoints" / str(latest)).rglob("*") if path.is_file()]
        chosen = self.rng.choice([path for path in files if path.stat().st_size > 1 and path.name != "files.json"])
        chosen.write_bytes(change(chosen.read_bytes()))
        started = self.start()
        assert f"warning: checkpoint step {latest} is damaged" in started.out, (chosen, started.out)
        started.process.send_signal(signal.SIGTERM)
        _expect(started.answer(), 143, "")
        self.lost = max(self.lost, latest - earlier)

    def flip_event(self) -> None:
        """Of what the faults before left; nothing runs between them."""
        files = sorted(path for path in (self.folder / "tensorboard").iterdir() if path.stat().st_size)
        chosen = self.rng.choice(files)
        chosen.write_bytes(self._flipped(chosen.read_bytes()))
        started = self.start()
        started.process.send_signal(signal.SIGTERM)
        answer = started.answer()
        assert answer.status == 143 and len(answer.err.splitlines()) == 1, answer
        assert f"{chosen.name} is damaged" in answer.err, answer

    def break_storage(self, fault: str) -> None:
        assert self.disk is not None
        step = self.kept()
        answer = break_under(self.disk, fault, arguments(FAMILY, self.folder), "evaluation at step", after=self.rng)
        self.disk.remedies[fault]()
        _expect(answer, 2, "error: ")
        assert self.kept() >= step, f"checkpoint {step} is gone: {os.listdir(self.folder / 'checkpoints')}"
        self.count_lost()


def _expect(answer: Answer, status: int, error: str) -> None:
    lines = answer.err.splitlines()
    assert answer.status == status and len(lines) == (1 if error else 0), answer
    assert not error or (lines[0].startswith("error: ") and error in lines[0]), answer


def drill(
    whole: Path, parent: Path, repeat: int, rng: random.Random, say: Callable[[str], None], storage_only: bool = False
) -> list[Row]:
    """Every fault ``repeat`` times in one run, which has to end as the undisturbed one in ``whole``."""
    reason = why_not()
    if reason:
        say(f"failing storage is left out: {reason}")
        run = _Run(parent / "vae-disturbed", None, rng)
        return [] if storage_only else _drill(run, _others(run), whole, repeat, say)
    with storage(parent / "disk", size="200m") as disk:
        run = _Run(disk.path / "run", disk, rng)
        faults = [] if storage_only else _others(run)
        faults += [(name, functools.partial(run.break_storage, name), _STEPS) for name in disk.faults]
        return _drill(run, faults, whole, repeat, say)


def _others(run: _Run) -> list[_Fault]:
    return [
        ("SIGTERM", run.terminate, "nothing"),
        ("Ctrl-C", run.interrupt, "nothing"),
        ("Ctrl-C twice", run.interrupt_twice, _STEPS),
        ("a second training in the folder", run.second_process, "nothing; the second is refused"),
        ("kill -9, with the lock left behind", run.stale_lock, _STEPS),
        ("a checkpoint truncated", run.truncate, "that checkpoint: at most {} steps"),
        ("a bit of a checkpoint flipped", run.flip, "that checkpoint: at most {} steps"),
        ("a bit of an event file flipped", run.flip_event, "one record of it; scalars are written anew"),
    ]


def _drill(run: _Run, faults: Sequence[_Fault], whole: Path, repeat: int, say: Callable[[str], None]) -> list[Row]:
    rows = []
    for name, fault, cost in faults:
        row, run.lost = Row(name), 0
        for _ in range(repeat):
            row.tried += 1
            try:
                fault()
                row.survived += 1
            except AssertionError as error:
                say(f"{name}: {error!r}")
        row.lost = cost.format(run.lost)
        rows.append(row)
        say(f"{name}: {row.survived} of {row.tried}; at step {checkpoint_steps(run.folder)[-1]}")
    answer = Started(arguments(FAMILY, run.folder)).answer()
    try:
        _expect(answer, 0, "")
        assert "continuing from step" in answer.out, "the run was finished before its faults were"
        same_run(run.folder, whole)
    except AssertionError as error:
        say(f"the run after all of them: {error!r}")
        for row in rows:
            row.survived = 0
    return rows
