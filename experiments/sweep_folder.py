"""The folder of a sweep: which runs it has, and how each of them stands.

``sweep.json`` holds what was asked for::

    {"config": "configs/vae/digits_conv.py:accelerator=cpu", "overrides": ["--config.total=10 epochs"],
     "executor": "local", "varied": ["optim.learning_rate", "seed"], "metric": "eval/elbo", "mode": "max",
     "runs": [{"name": "learning_rate=0.001,seed=1", "overrides": {"optim.learning_rate": 0.001, "seed": 1}}, ...]}

Runs are only ever added to it. The folder ``NAME`` of each is an ordinary work folder, and the state of a run is read
from there, never stored a second time: see ``SweepRun.state``. What a run printed is in ``logs/NAME.txt``.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genjax.io.files import read_json, write_json
from genjax.io.workdir import Workdir
from genjax.sweep import Overrides, run_names
from genjax.types import UserError

RECORD = "sweep.json"
LOGS = "logs"
STATES = ("finished", "stopped", "diverged", "failed", "begun", "new")
ENDED = ("finished", "stopped", "diverged")  # states of runs that are not trained again


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
      name: of its folder.
      overrides: its settings, by dotted name.
      folder: of the sweep.
    """

    name: str
    overrides: Overrides
    folder: Path

    path = property(lambda self: self.folder / self.name, doc="The work folder.")
    workdir = property(lambda self: Workdir(self.path))
    log = property(lambda self: self.folder / LOGS / f"{self.name}.txt", doc="What its processes printed.")

    @property
    def state(self) -> str:
        """One of ``STATES``: what the files in its folder say."""
        workdir = self.workdir
        if workdir.evaluation.exists() and "finished" in read_json(workdir.evaluation):
            return "finished"
        for state, path in (("stopped", workdir.stopped), ("diverged", workdir.diverged), ("failed", workdir.failure)):
            if path.exists():
                return state
        return "begun" if workdir.config.exists() else "new"

    @property
    def reason(self) -> str:
        """Why it stopped, diverged or failed, in one line; empty in other states."""
        workdir = self.workdir
        said = {"stopped": (workdir.stopped, "reason"), "failed": (workdir.failure, "reason")}
        said["diverged"] = workdir.diverged, "message"
        if (state := self.state) not in said:
            return ""
        path, key = said[state]
        return read_json(path)[key]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What ``sweep.json`` holds. Making or changing the object writes nothing; ``write`` does.

    Attributes:
      path: the folder.
      config: file and argument, as ``--config`` takes them.
      flags: the overrides of all runs, as they stand on a command line.
      executor: that trained last.
      runs: in the order in which they were asked for.
      metric, mode: what the runs are judged by; empty where nothing says so.
    """

    path: Path
    config: str
    flags: tuple[str, ...]
    executor: str
    runs: tuple[SweepRun, ...]
    metric: str = ""
    mode: str = "max"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sweep:
        """Raises UserError where the folder holds no sweep."""
        folder = Path(os.path.abspath(path))
        if not (folder / RECORD).is_file():
            raise UserError(f"{path} holds no sweep: there is no {RECORD} in it")
        record = read_json(folder / RECORD)
        runs = tuple(SweepRun(run["name"], _tuples(run["overrides"]), folder) for run in record["runs"])
        config, flags = record["config"], tuple(record["overrides"])
        return cls(folder, config, flags, record["executor"], runs, record["metric"], record["mode"])

    @classmethod
    def begun(cls, path: str, config: str, flags: Sequence[str], executor: str, metric: str, mode: str) -> Sweep:
        """The sweep that the folder holds, or a new one without runs.

        Raises:
          UserError: the folder holds something else, or a sweep of another config.
        """
        folder = Path(os.path.abspath(path))
        new = cls(folder, config, tuple(flags), executor, (), metric, mode)
        if not (folder / RECORD).exists():
            if folder.exists() and (not folder.is_dir() or any(not n.startswith(".") for n in os.listdir(folder))):
                raise UserError(f"--workdir {path} is not empty and holds no sweep; use a new folder")
            return new
        old = cls.read(folder)
        before, now = ([o.config.partition(":")[0], *filter(_matters, o.flags)] for o in (old, new))
        if before != now:
            raise UserError(
                f"--workdir {path} holds a sweep of {shlex.join(before)}, not of {shlex.join(now)}; use another folder"
            )
        return dataclasses.replace(new, runs=old.runs)

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that runs override, in the order in which they come up."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.overrides))

    def with_runs(self, wanted: Iterable[Overrides]) -> tuple[Sweep, list[SweepRun]]:
        """The sweep with those of ``wanted`` that are new, and a run for each of ``wanted``."""
        wanted = list(wanted)
        taken = {run.name: run.overrides for run in self.runs}
        names = run_names(wanted, taken)
        runs = [SweepRun(name, overrides, self.path) for name, overrides in zip(names, wanted, strict=True)]
        added = [run for run in runs if run.name not in taken]
        return dataclasses.replace(self, runs=(*self.runs, *added)), runs

    def write(self) -> None:
        """Writes ``sweep.json``. Raises UserError where it can't."""
        record = {"config": self.config, "overrides": self.flags, "executor": self.executor, "varied": self.varied}
        record |= {"metric": self.metric, "mode": self.mode}
        runs = [{"name": run.name, "overrides": run.overrides} for run in self.runs]
        write_json(self.path / RECORD, {**record, "runs": runs})

    def arguments(self, run: SweepRun) -> list[str]:
        """What ``experiments.train`` takes to train one run alone; every executor's runs are what these make."""
        own = [as_flag(name, value) for name, value in run.overrides.items()]
        replaced = {flag.partition("=")[0] for flag in own}
        rest = [flag for flag in self.flags if flag.partition("=")[0] not in replaced]
        return [f"--config={self.config}", f"--workdir={run.path}", *rest, *own]


def as_flag(name: str, value: Any) -> str:
    """``--config.name=value``, such that parsing it gives ``value`` again."""
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
    return f"--config.{name}={text}"


def _matters(flag: str) -> bool:
    """Whether runs with and without a flag are different runs: not where it says on what machine they train."""
    return not flag.startswith("--config.accelerator.")


def _tuples(overrides: Mapping[str, Any]) -> Overrides:
    def tuples(value: Any) -> Any:
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return {name: tuples(value) for name, value in overrides.items()}
