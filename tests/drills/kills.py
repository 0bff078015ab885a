"""Kill -9 at random moments of one run, started again after each, until it ends."""

from __future__ import annotations

import collections
import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.commands import checkpoint_steps, same_run
from tests.drills.runs import FAMILIES, Started, arguments
from tests.drills.table import Row

_TEMPORARY = ".orbax-checkpoint-tmp"
_EVALUATED = 40  # steps from one evaluation to the next
_PATIENCE = 300.0  # seconds for a start and the steps before a kill


def logged(folder: Path) -> list[dict]:
    """The whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def is_writing(folder: Path) -> bool:
    """Whether a checkpoint is half written."""
    return any(_TEMPORARY in path.name for path in (folder / "checkpoints").glob("*"))


def is_evaluating(folder: Path) -> bool:
    """Whether the newest log is of a step that is evaluated, and the evaluation is not in it yet."""
    last = logged(folder)[-1:]
    return bool(last) and last[0]["step"] % _EVALUATED == 0 and not any(name.startswith("eval/") for name in last[0])


class Killer:
    """Waits for a moment of one kind and kills.

    Args:
      folder: of the run.
      stride: steps that a run makes at most before it is killed.
      rng: chooses the moment.

    Attributes:
      moments: kind -> whether the moment has come, asked again and again.
    """

    def __init__(self, folder: Path, stride: float, rng: random.Random):
        self.folder, self.stride, self.rng = folder, stride, rng
        self.moments: dict[str, Callable[[], bool]] = {
            "training": lambda: not is_writing(folder) and not is_evaluating(folder),
            "write": lambda: is_writing(folder),
            "evaluation": lambda: is_evaluating(folder),
        }

    def kill(self, started: Started, aim: str) -> bool:
        """Whether the run was killed; not when it ended before."""
        begin = time.monotonic()
        if aim == "start":
            time.sleep(self.rng.uniform(1.0, 6.0))
        else:
            target = (checkpoint_steps(self.folder) or [0])[-1] + self.rng.uniform(0, self.stride)
            while started.running and ("first step after" not in started.out or newest(self.folder) < target):
                if time.monotonic() - begin > _PATIENCE:
                    raise TimeoutError(started.out)
                time.sleep(0.005)
            while started.running and not self.moments[aim]():
                time.sleep(0.0005)
            time.sleep(self.rng.uniform(0.0, 0.05))  # somewhere in it
        if not started.running:
            return False
        started.process.send_signal(signal.SIGKILL)
        started.process.wait()
        return True


def newest(folder: Path) -> int:
    """The last step in the log, 0 without one."""
    return (logged(folder) or [{"step": 0}])[-1]["step"]


def observed(folder: Path, out: str) -> str:
    """What a killed run was doing, by what it left."""
    if "first step after" not in out:
        return "in the start"
    if is_evaluating(folder):
        return "in evaluation"
    return "in a checkpoint write" if is_writing(folder) else "in training"


def drill(family: str, whole: Path, parent: Path, times: int, rng: random.Random, say: Callable[[str], None]) -> Row:
    """Kills runs of a family ``times`` times in all; each has to end as the undisturbed one in ``whole``."""
    row, where, lost = Row(f"kill -9, {family}"), collections.Counter(), [0]
    number = 0
    while row.tried < times:
        folder = parent / f"{family}-killed-{number}"
        number += 1
        killer = Killer(folder, 2 * FAMILIES[family][1] / times, rng)
        killed = 0
        while True:
            started = Started(arguments(family, folder))
            aims = ["training", "write", "evaluation"] * 3 + ["start"]
            aim = aims[(row.tried + killed) % len(aims)]
            if row.tried + killed < times and killer.kill(started, aim):
                killed += 1
                where[observed(folder, started.out)] += 1
                lost.append(newest(folder) - (checkpoint_steps(folder) or [0])[-1])
                continue
            answer = started.answer()
            break
        row.tried += killed
        try:
            assert answer.status == 0 and answer.err == "", answer
            same_run(folder, whole)
            row.survived += killed
        except AssertionError as error:
            say(f"{row.fault}: {error!r}")
        if not killed:
            break  # the run is too short to be killed
        say(f"{row.fault}: {row.survived} of {row.tried}; {dict(where)}")
    row.fault += f" ({', '.join(f'{count} {place}' for place, count in sorted(where.items()))})"
    row.lost = f"steps since the last checkpoint: at most {max(lost)}"
    return row
