"""A folder whose storage fails under a running training: full, read-only, or gone, and mended again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cli.commands import ROOT, Answer, environment


def why_not() -> str:
    """Why storage can't be made to fail here, empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, to mount"
    missing = [name for name in ("mount", "umount", "setpriv") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    return "" if probe.returncode == 0 else f"may not mount: {probe.stderr.strip()}"


class Storage:
    """A small file system of its own at a path, with its faults.

    Attributes:
      faults: name -> what brings it about under a run that is stopped.
      remedies: name -> what ends it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._filler, self._away = path / "filler", path.with_name(path.name + "-away")
        self.faults: dict[str, Callable[[], None]] = {
            "full disk": self._fill,
            "read-only folder": lambda: _command("chmod", "-R", "a-w", path),
            "vanished drive": self._vanish,
        }
        self.remedies: dict[str, Callable[[], None]] = {
            "full disk": self._filler.unlink,
            "read-only folder": lambda: _command("chmod", "-R", "u+w", path),
            "vanished drive": self._return,
        }

    def _fill(self) -> None:
        # Not by the number of free blocks, which another process may still take from.
        with open(self._filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))

    def _vanish(self) -> None:
        self._away.mkdir(exist_ok=True)
        _command("mount", "--bind", self.path, self._away)
        _command("umount", "--lazy", self.path)

    def _return(self) -> None:
        # What was written to the empty mount point while the drive was away is not part of the run.
        self.beneath = sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file())
        _command("mount", "--bind", self._away, self.path)
        _command("umount", self._away)

    def remount(self, how: str) -> None:
        """``ro`` or ``rw``, while nobody has a file open for writing."""
        _command("mount", "-o", f"remount,{how}", self.path)


@contextlib.contextmanager
def storage(path: Path, size: str = "48m") -> Iterator[Storage]:
    """A new, empty file system at ``path``, unmounted at the end."""
    path.mkdir(parents=True)
    _command("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    made = Storage(path)
    try:
        yield made
    finally:
        for place in (made.path, made._away):
            while os.path.ismount(place):
                _command("umount", "--lazy", place)


def start_bound(module: str, *arguments: str) -> subprocess.Popen[str]:
    """A command that permissions bind although root runs it."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    command = [*bound, sys.executable, "-u", "-m", f"experiments.{module}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes)


def break_under(
    storage: Storage, fault: str, arguments: list[str], line: str, after: random.Random | None = None
) -> Answer:
    """Starts a training and breaks its storage once a line of its output begins with ``line``; how it ended.

    With ``after``, up to a tenth of a second later, as it draws. One that has not ended two minutes later is killed.
    """
    process = start_bound("train", *arguments)
    assert process.stdout is not None
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.startswith(line):
            break
    if after is not None:
        time.sleep(after.uniform(0.0, 0.1))
    process.send_signal(signal.SIGSTOP)  # so that all of the fault is there before the run meets it
    try:
        storage.faults[fault]()
    finally:
        process.send_signal(signal.SIGCONT)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return Answer(process.returncode, "".join(seen) + out, err)


def _command(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
