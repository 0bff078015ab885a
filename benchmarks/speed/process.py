"""A worker process as the one who measures sees it: start it, ask it, end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

START_LIMIT = 600.0  # seconds until the first step; compiling on two cores takes a minute or two
ANSWER_LIMIT = 300.0


class WorkerError(Exception):
    """One line of why a worker can't go on."""


class Worker:
    """A process that answers lines of JSON, ``worker.py``.

    Args:
      command: what to run.
      environment: of the process, all of it.
      folder: its working directory.

    Attributes:
      started: seconds from its start to the end of its first training step.
      hello: what it said then, such as "versions" and "unit".

    Raises:
      WorkerError: it ended, failed or stayed silent before the first step was done.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path, limit: float = START_LIMIT):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - close() closes it
        start = time.perf_counter()
        try:
            # A session of its own: compilers that it started end with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise WorkerError(f"{command[0]} can't be run: {error.strerror}") from error
        try:
            self.hello = self._answer(limit)
        except BaseException:
            self.close()
            raise
        self.started = time.perf_counter() - start

    def ask(self, **message: Any) -> dict[str, Any]:
        """The answer to a message; WorkerError if there is none."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said last says why
        return self._answer(ANSWER_LIMIT)

    def seconds(self, task: str, count: int) -> float:
        """Time that ``count`` units of a task take."""
        return self.ask(run=task, count=count)["seconds"]

    def cpu_seconds(self) -> float:
        """Processor time that it has used; 0 where the system does not say."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process and all that it started."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        self._kill()
        self._process.wait()
        self._log.close()

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _answer(self, limit: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        start = time.perf_counter()  # before the timer, so that what it ends is late by this clock too
        timer = threading.Timer(limit, self._kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise WorkerError(self._last_words(time.perf_counter() - start >= limit, limit))
        message = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message

    def _last_words(self, late: bool, limit: float) -> str:
        if late:
            return f"no answer within {limit:.0f} s"
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return f"ended: {lines[-1] if lines else f'exit status {self._process.wait()}'}"
