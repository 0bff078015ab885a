"""The work folder of one run: what lies where, and whose it is.

A work folder holds ``config.json``, ``environment.json``, ``checkpoints/``, ``tensorboard/``, ``metrics.jsonl``,
``images/`` and ``evaluation.json``; ``diverged.json`` where training could not go on. A sweep leaves ``failure.json``
where a run could not be trained and ``stopped.json`` where it was not worth going on with. ``rollbacks.json`` is there
where training went back to a checkpoint and on another way.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genjax.io.difference import different
from genjax.io.files import Place, decode_floats, encode_floats, read_json, read_record, remove_leftovers, write_json
from genjax.io.manifest import versions
from genjax.types import UserError

POPULATION = "population.json"  # in a folder whose folders are the members of a population
# Settings that older runs' configs lack, with what those runs did.
_ADDED = {"checkpoint": {"keep": ""}, "accelerator": {"fsdp": 1, "tensor": 1, "deterministic": False}}
_STOP = {"policy": "stop", "max_grad_norm": 0.0, "rollbacks": 3, "rate_factor": 0.5, "reseed": True}


class Workdir:
    """The layout of a work folder. Making the object touches nothing; see the two ``open`` methods.

    ``open_for_training`` holds a lock on the folder until ``close``, the end of the ``with`` block or the end of the
    process, however it ends.
    """

    def __init__(self, path: str | os.PathLike[str], writes: bool = True):
        self.path = Path(os.path.abspath(path))
        self.writes = writes  # whether this process may change what lies here, besides checkpoints
        self._lock: Any = None
        self._place: Place | None = None  # of one that is open for training

    config = property(lambda self: self.path / "config.json", doc="The config the run was started with.")
    environment = property(lambda self: self.path / "environment.json", doc="Versions, device and commit.")
    checkpoints = property(lambda self: self.path / "checkpoints", doc="Folder for ``io.checkpoint.Checkpoints``.")
    tensorboard = property(lambda self: self.path / "tensorboard", doc="Folder of event files.")
    metrics = property(lambda self: self.path / "metrics.jsonl", doc="One JSON object per logged step.")
    images = property(lambda self: self.path / "images", doc="Folder of PNG files.")
    evaluation = property(lambda self: self.path / "evaluation.json", doc="Results and how they were measured.")
    diverged = property(lambda self: self.path / "diverged.json", doc="Where training met a number that is not finite.")
    rollbacks = property(lambda self: self.path / "rollbacks.json", doc="How often training went back, and why.")
    failure = property(lambda self: self.path / "failure.json", doc="Why a sweep could not train the run.")
    stopped = property(lambda self: self.path / "stopped.json", doc="Why a sweep stopped the run early.")
    lock = property(lambda self: self.path / ".lock", doc="Held by the training that writes here.")

    def __repr__(self) -> str:
        return f"Workdir({str(self.path)!r})"

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Workdir:
        """Opens an existing run for evaluation or sampling; takes no lock.

        Raises:
          UserError: no such folder, no ``config.json`` in it, or one that is not JSON.
        """
        workdir = cls(path)
        if not os.path.isdir(workdir.path):
            raise UserError(f"--workdir {path}: no such folder")
        if os.path.isfile(workdir.path / POPULATION):
            members = members_of(workdir.path)
            raise UserError(f"--workdir {path} holds a population; name a member, such as {Path(path) / members[0]}")
        if not os.path.isfile(workdir.config):
            raise UserError(f"--workdir {path}: no config.json in it, so it is not the work folder of a run")
        workdir.read_config()
        return workdir

    @classmethod
    def open_for_training(
        cls, path: str | os.PathLike[str], config: Mapping[str, Any], ignore: Sequence[str] = ()
    ) -> Workdir:
        """Creates the folder, or opens one whose run had the same config, and locks it.

        Where the folder was new, ``config`` is written to it; otherwise ``config.json`` stays as it was. Nothing is
        changed when an error is raised.

        Args:
          path: the work folder; its parents are created too.
          config: nested dictionary of what JSON can hold.
          ignore: top-level sections that may differ from the run that was begun (where it logs, for how long it runs).

        Raises:
          UserError: the path is a file, a folder that is not a work folder, or not writable; its ``config.json`` is
            unreadable or differs (naming the keys); or another training holds it (naming its process).
        """
        workdir = cls(path)
        try:
            encoded = decode_floats(encode_floats(config))
        except TypeError as error:
            raise UserError(f"config: {error}") from error
        try:
            workdir.check_begun(encoded, ignore)
            workdir.path.mkdir(parents=True, exist_ok=True)
            if not os.access(workdir.path, os.W_OK | os.X_OK):
                raise PermissionError(0, "no permission to write")
            workdir._acquire()
        except OSError as error:
            raise UserError(f"--workdir {path} cannot be used: {error.strerror or error}") from error
        try:
            # Again under the lock: two first starts may have looked at the same moment.
            workdir.check_begun(encoded, ignore)
            if not workdir.config.exists():
                write_json(workdir.config, encoded)
            workdir._place = Place(workdir.path)
            for folder in (workdir.path, workdir.images):  # an evaluation beside this training may write there
                remove_leftovers(folder)
            remove_leftovers(workdir.tensorboard, alone=True)  # TensorBoard would read them
        except BaseException:
            workdir.close()
            raise
        return workdir

    def check_in_place(self) -> None:
        """Raises UserError where the folder that was opened for training no longer lies at its path."""
        if self._place is not None:
            self._place.check()

    def make_images(self) -> None:
        """Makes the folder of PNG files; UserError where that can't be."""
        try:
            self.images.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {self.images}: {error.strerror or error}") from error

    def close(self) -> None:
        """Lets another training use the folder. Calling it twice is harmless."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_config(self) -> dict[str, Any]:
        """The config of the run, with the settings that have come since. Raises UserError where missing or corrupt."""
        config = read_record(self.config)
        for section, settings in _ADDED.items():
            if section in config and isinstance(config[section], dict):
                config[section] = {**settings, **config[section]}
        if "checkpoint" in config:  # a config of a training, not of something else that has a folder
            config.setdefault("divergence", _STOP)
        return config

    def write_environment(self, now: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes ``environment.json`` and returns it; this asks jax for its devices.

        ``now`` is what ``describe_environment`` says, where it has been asked already, for another member.

        The file describes this start; where an earlier start of the run saw something else, its description is kept
        in the list ``"earlier"``.
        """
        now = describe_environment() if now is None else now
        earlier = []
        if self.environment.exists():
            try:
                before = dict(read_json(self.environment))
                earlier = before.pop("earlier", [])
                if {**before, "time": None} != {**now, "time": None}:
                    earlier = [*earlier, before]
            except (UserError, TypeError, ValueError):
                earlier = []  # unreadable: it only describes, so the run goes on
        environment = {**now, "earlier": earlier}
        write_json(self.environment, environment)
        return environment

    def check_begun(self, config: Mapping[str, Any], ignore: Sequence[str]) -> None:
        """Whether the folder is new, or its run was begun with ``config``; see ``open_for_training``. Changes nothing.

        Raises:
          UserError: the folder is something else, or holds a run with another config.
        """
        config = decode_floats(encode_floats(config))
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--workdir {self.path} is a file, must be a folder")
        if not self.path.is_dir():
            return
        if not self.config.exists():
            # A start killed before it wrote config.json leaves the lock and perhaps a temporary file, and a sweep whose
            # run could not even start says so.
            expected = (self.lock.name, self.failure.name)
            if any(name not in expected and not _is_temporary(name) for name in os.listdir(self.path)):
                raise UserError(f"--workdir {self.path} is not empty and has no config.json; use a new folder")
            return
        begun = self.read_config()
        skip = set(ignore)
        kept = lambda settings: {name: value for name, value in settings.items() if name not in skip}  # noqa: E731
        if found := different(kept(begun), kept(config)):
            raise UserError(f"--workdir {self.path} holds a run with another config: {found}; use another --workdir")

    def _acquire(self) -> None:
        # Opened without truncation: the content belongs to the holder until the lock is ours. The kernel drops an
        # flock with the process, so nothing is left behind by a kill.
        file = open(self.lock, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 (held as long as the lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = " ".join(file.read().split()) or "unknown"
            file.close()
            raise UserError(f"--workdir {self.path} is in use by another training (process {holder})") from None
        except OSError as error:  # some network file systems have no flock
            logging.getLogger(__name__).warning("%s cannot be locked: %s", self.path, error.strerror)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node() or 'an unnamed host'}\n")
        file.flush()
        self._lock = file


def open_population(
    path: str | os.PathLike[str], configs: Mapping[str, Mapping[str, Any]], ignore: Sequence[str] = ()
) -> list[Workdir]:
    """Opens a folder with a work folder for each member, as ``Workdir.open_for_training`` does each of them.

    Raises:
      UserError: the folder holds something else, or a population with other members; or as for a single one.
    """
    folder = Path(os.path.abspath(path))
    names = list(configs)
    if (folder / "config.json").exists():
        raise UserError(f"--workdir {path} holds a single run; use another --workdir for a population")
    if (folder / POPULATION).exists():
        begun = members_of(folder)
        if begun != names:
            raise UserError(
                f"--workdir {path} holds a population of {', '.join(begun)}, not of {', '.join(names)}; "
                "use another --workdir"
            )
    elif folder.is_dir() and any(not _is_temporary(name) for name in os.listdir(folder)):
        raise UserError(f"--workdir {path} is not empty and holds no population; use a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / POPULATION, {"members": names})
    except OSError as error:
        raise UserError(f"--workdir {path} cannot be used: {error.strerror or error}") from error
    opened: list[Workdir] = []
    try:
        for name, config in configs.items():
            opened.append(Workdir.open_for_training(folder / name, config, ignore))
    except BaseException:
        for workdir in opened:
            workdir.close()
        raise
    return opened


def members_of(folder: Path) -> list[str]:
    """The names of the members of the population in a folder. Raises UserError where its file is missing or corrupt."""
    members = read_record(folder / POPULATION, "members")["members"]
    if not isinstance(members, list) or not members or not all(isinstance(name, str) for name in members):
        raise UserError(f'{folder / POPULATION} is not {{"members": [names]}}; is the file damaged?')
    return members


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def describe_environment() -> dict[str, Any]:
    """Python, platform, package versions, jax backend and devices, and the code's commit; all of it JSON.

    ``git`` is None where the code is not a git checkout, else ``{"commit": ..., "dirty": ...}``.
    """
    import jax  # here, so that reading a work folder does not load it

    devices = jax.devices()
    return {
        "time": round(time.time(), 3),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name, version in versions().items() if name != "python"},
        "backend": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "argv": list(sys.argv),
        "git": _git(Path(__file__).resolve().parents[2]),
    }


def _git(root: Path) -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's checkout: the repository must hold this very file.
        git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
