"""The folder of a sweep: which runs it has, and how each of them stands.

``sweep.json`` holds what was asked for::

    {"config": "configs/vae/digits_conv.py:accelerator=cpu", "overrides": ["--config.total=10 epochs"],
     "executor": "local", "varied": ["optim.learning_rate", "seed"], "metric": "eval/elbo", "mode": "max",
     "kind": "list", "sweep": "",
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

from experiments.sweep_same import as_begun
from genjax.io.files import read_json, read_record, write_json
from genjax.io.workdir import Workdir
from genjax.sweep import Overrides, run_names
from genjax.types import UserError

RECORD = "sweep.json"
STUDY = "search.db"  # of a search
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
    log = property(lambda self: self.folder / LOGS / f"{self.name}.txt", doc="What its processes printed.")

    @property
    def workdir(self) -> Workdir:
        return Workdir(self.path)

    @property
    def state(self) -> str:
        """One of ``STATES``: what the files in its folder say."""
        workdir = self.workdir
        if workdir.evaluation.exists() and "finished" in read_record(workdir.evaluation):
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
        return read_record(path, key)[key]


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
      kind: "list" or "search"; empty where nothing was asked for yet.
      asked: which sweep of the config asked last, as ``--sweep`` names it.
    """

    path: Path
    config: str
    flags: tuple[str, ...]
    executor: str
    runs: tuple[SweepRun, ...]
    metric: str = ""
    mode: str = "max"
    kind: str = ""
    asked: str = ""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sweep:
        """Raises UserError where the folder holds no sweep."""
        folder = Path(os.path.abspath(path))
        if not (folder / RECORD).is_file():
            raise UserError(f"{path} holds no sweep: there is no {RECORD} in it")
        record = read_json(folder / RECORD)
        if said := _damage(record):
            raise UserError(f"{folder / RECORD} is damaged: {said}")
        runs = tuple(SweepRun(run["name"], _tuples(run["overrides"]), folder) for run in record["runs"])
        config, flags = record["config"], tuple(record["overrides"])
        # Earlier versions said neither of these two.
        kind = record["kind"] if "kind" in record else _kind(folder, runs)
        asked = record["sweep"] if "sweep" in record else ""
        return cls(folder, config, flags, record["executor"], runs, record["metric"], record["mode"], kind, asked)

    @classmethod
    def begun(cls, path: str, config: str, flags: Sequence[str], executor: str, metric: str, mode: str) -> Sweep:
        """The sweep that the folder holds, or a new one without runs.

        Raises:
          UserError: the folder holds something else, or a sweep of another config.
        """
        folder = Path(os.path.abspath(path))
        new = cls(folder, config, tuple(flags), executor, (), metric, mode)
        try:
            if not (folder / RECORD).exists():
                _check_new(folder, path)
                return new
        except OSError as error:
            raise UserError(f"--workdir {path} cannot be used: {error.strerror or error}") from error
        old = cls.read(folder)
        if _meant(old) != _meant(new):
            before, now = (shlex.join([o.config.partition(":")[0], *filter(_matters, o.flags)]) for o in (old, new))
            raise UserError(f"--workdir {path} holds a sweep of {before}, not of {now}; use another folder")
        return dataclasses.replace(new, runs=old.runs, kind=old.kind, asked=old.asked)

    def asking(self, kind: str, name: str) -> Sweep:
        """The sweep as ``--sweep=name`` asks for it, which is a list or a search.

        Raises:
          UserError: the folder holds one of the other kind. A report would take what was chosen for what was asked for.
        """
        if self.kind not in ("", kind):
            how = f" (--sweep={self.asked})" if self.asked else ""
            raise UserError(
                f"--workdir {self.path} holds a {self.kind}{how}, not a {kind}; use another --sweep or another folder"
            )
        return dataclasses.replace(self, kind=kind, asked=name)

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that runs override, in the order in which they come up."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.overrides))

    def with_runs(self, wanted: Iterable[Overrides]) -> tuple[Sweep, list[SweepRun]]:
        """The sweep with those of ``wanted`` that are new, and the runs that ``wanted`` are; see ``sweep_same``."""
        wanted = as_begun(self.runs, list(wanted))
        taken = {run.name: run.overrides for run in self.runs}
        names = run_names(wanted, taken)
        runs = [SweepRun(name, overrides, self.path) for name, overrides in zip(names, wanted, strict=True)]
        added = [run for run in runs if run.name not in taken]
        return dataclasses.replace(self, runs=(*self.runs, *added)), runs

    def write(self) -> None:
        """Writes ``sweep.json``. Raises UserError where it can't."""
        record = {"config": self.config, "overrides": self.flags, "executor": self.executor, "varied": self.varied}
        record |= {"metric": self.metric, "mode": self.mode, "kind": self.kind, "sweep": self.asked}
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


def _meant(sweep: Sweep) -> tuple[str, dict[str, str]]:
    """What makes two sweeps one: the file, and the last value of each setting, in whatever order they are given."""
    given = (flag.partition("=") for flag in filter(_matters, sweep.flags))
    return sweep.config.partition(":")[0], {name: value for name, _, value in given}


def _check_new(folder: Path, path: str) -> None:
    """Raises UserError or OSError where a folder that holds no sweep can't become that of one."""
    if folder.exists() and (not folder.is_dir() or any(not name.startswith(".") for name in os.listdir(folder))):
        raise UserError(f"--workdir {path} is not empty and holds no sweep; use a new folder")
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"--workdir {path} cannot be used: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--workdir {path} cannot be used: no permission to write to {there}")


def _kind(folder: Path, runs: Sequence[SweepRun]) -> str:
    return "search" if (folder / STUDY).exists() else "list" if runs else ""


def _damage(record: Any) -> str:
    """What is wrong with the content of ``sweep.json``; empty where nothing is."""
    kinds = {"config": str, "overrides": list, "executor": str, "metric": str, "mode": str, "runs": list}
    if not isinstance(record, dict):
        return "it is not a JSON object"
    for name, kind in kinds.items():
        if name not in record or not isinstance(record[name], kind):
            return f"{name} is {'no ' + kind.__name__ if name in record else 'missing'}"
    if not all(isinstance(flag, str) for flag in record["overrides"]):
        return "overrides are no list of strings"
    for run in record["runs"]:
        fits = isinstance(run, dict) and isinstance(run.get("name"), str) and isinstance(run.get("overrides"), dict)
        if not fits:
            return "runs are no list of names with overrides"
    return ""


def _tuples(overrides: Mapping[str, Any]) -> Overrides:
    def tuples(value: Any) -> Any:
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return {name: tuples(value) for name, value in overrides.items()}
