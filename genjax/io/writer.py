"""The log of a run: TensorBoard event files for people and ``metrics.jsonl`` as the record.

Both are written without a queue and flushed at each call, so a killed process loses nothing it has logged. A resumed
run continues both as if the steps after its checkpoint had never been logged. What it logs for that very step again,
because it was killed between the log and the next checkpoint, is left out. Event files that are damaged stop no run.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary as tensorboard_summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from genjax.io.events import cut_events
from genjax.io.files import decode_floats, encode_floats, sync, write_atomic
from genjax.types import UserError

_RESERVED = ("step", "time")


class Writer:
    """Writes scalars, images, text and hyperparameters of one run.

    Scalars go to the event files and, one JSON object per call, to ``metrics.jsonl``::

        {"step": 200, "time": 1700000000.123, "train/loss": 0.53, "train/grad_norm": "NaN"}

    ``time`` is in Unix seconds. JSON has no word for non-finite numbers, so they are the strings ``"NaN"``,
    ``"Infinity"`` and ``"-Infinity"``; ``read_metrics`` turns them back into floats.

    Args:
      logdir: the work folder; event files go to ``<logdir>/tensorboard``, records to ``<logdir>/metrics.jsonl``.
      resume_step: the step of the checkpoint the run continues from. What was logged for later steps is removed from
        both. None is a run from the beginning: everything logged before is removed.

    Raises:
      UserError: the folder cannot be written, or ``metrics.jsonl`` is damaged before its last line.
    """

    def __init__(self, logdir: str | os.PathLike[str], resume_step: int | None = None):
        self.folder = Path(logdir) / "tensorboard"
        self.metrics_path = Path(logdir) / "metrics.jsonl"
        last_kept = -1 if resume_step is None else resume_step
        self._last_step = max(last_kept, 0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = _truncate_metrics(self.metrics_path, last_kept)
            event_files, shown = cut_events(self.folder, last_kept, kept)
            self._metrics = open(self.metrics_path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
            # Names carry whole seconds, and opening a name twice would erase the first file: number them.
            self._events = EventsWriter(str(self.folder / "events"), filename_suffix=f".{len(event_files):04d}")
        except OSError as error:
            raise UserError(f"cannot write the log in {logdir}: {error.strerror or error}") from error
        self._logged = {name for record in kept for name in record if name not in _RESERVED}
        self._recorded, self._shown = _Seen(), _Seen()  # in the two files
        for record in kept:
            self._recorded.new(record["step"], [name for name in record if name not in _RESERVED])
        for step, tags in shown:
            self._shown.new(step, tags)
        if resume_step is not None:
            # For a TensorBoard that is running and has the removed steps in its memory.
            self._event(Event(step=last_kept + 1, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs numbers (Python, NumPy or jax scalars) under names like ``train/loss``; of a name, a step's first.

        Raises:
          UserError: a name is ``step`` or ``time``, a value is not a single number, or the disk is full.
        """
        record: dict[str, Any] = {"step": int(step), "time": round(time.time(), 3)}
        for name, value in values.items():
            if name in _RESERVED:
                raise UserError(f"a metric cannot be called {name!r}: metrics.jsonl uses that name")
            record[name] = _number(name, value)
        names = [name for name in record if name not in _RESERVED]
        new = {*_RESERVED, *self._recorded.new(int(step), names)}
        with _writing(self.metrics_path):
            if len(new) > len(_RESERVED):
                kept = {name: value for name, value in record.items() if name in new}
                self._metrics.write(json.dumps(encode_floats(kept), allow_nan=False) + "\n")
            self._summary(step, Summary(value=[Summary.Value(tag=n, simple_value=float(record[n])) for n in names]))
        self._logged.update(names)
        self._last_step = max(self._last_step, int(step))
        self.flush()

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Logs images, each uint8 ``[H, W, C]`` with 1 or 3 channels, to TensorBoard; UserError for anything else."""
        for name, image in images.items():
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
                raise UserError(
                    f"image {name!r} is {image.dtype}{list(image.shape)}, must be uint8 [H, W, C] with 1 or 3 channels"
                )
            colour = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
            self._summary(step, tensorboard_summary.image(name, colour, dataformats="HWC"))
        self.flush()

    def text(self, step: int, texts: Mapping[str, str]) -> None:
        """Logs texts (Markdown) to TensorBoard."""
        for name, text in texts.items():
            self._summary(step, tensorboard_summary.text(name, text))
        self.flush()

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Makes this run one row of TensorBoard's HParams table: the first call of a run does, whatever process it is.

        Which columns the table of several runs has is for whoever knows them all to say, with ``describe_hparams``.

        Args:
          config: flat, dotted names to values. Numbers, booleans and strings are kept, the rest is shown as text.
          metrics: the row's results by name. TensorBoard shows the newest scalar of each name; one never logged as a
            scalar is logged here, at the newest step.
        """
        shown = {name: _hparam(value) for name, value in config.items()}
        _, start, end = tensorboard_summary.hparams(shown, {})
        self._summary(0, start)
        self._summary(0, end)
        missing = {name: value for name, value in metrics.items() if name not in self._logged}
        if missing:
            self.scalars(self._last_step, missing)
        self.flush()

    def flush(self) -> None:
        """Hands everything to the operating system; each logging call ends with it. UserError: the disk is full."""
        with _writing(self.metrics_path):
            self._metrics.flush()
            self._events.flush()

    def sync(self) -> None:
        """Like ``flush``, and brings ``metrics.jsonl`` onto the disk: no checkpoint may outlive its log."""
        self.flush()
        with _writing(self.metrics_path):
            sync(self.metrics_path, self.metrics_path.parent)

    def close(self) -> None:
        """Closes the files. Calling it twice is harmless."""
        if not self._metrics.closed:
            with _writing(self.metrics_path):
                self._metrics.close()
                self._events.close()

    def _summary(self, step: int, summary: Summary) -> None:
        new = self._shown.new(int(step), [value.tag for value in summary.value])
        values = [value for value in summary.value if value.tag in new]
        if values:
            self._event(Event(step=int(step), summary=Summary(value=values)))

    def _event(self, event: Event) -> None:
        event.wall_time = time.time()
        with _writing(self.folder):
            self._events.write_event(event)


class _Seen:
    """The names that the newest step has, and step 0, where what describes a whole run goes."""

    def __init__(self):
        self._names: dict[int, set[str]] = {0: set()}

    def new(self, step: int, names: Iterable[str]) -> set[str]:
        """Those of the names that the step has not; from now on it has them."""
        if step not in self._names and step < max(self._names):
            return set(names)
        if step not in self._names:
            self._names = {0: self._names[0], step: set()}
        new = set(names) - self._names[step]
        self._names[step] |= new
        return new


class Silent(Writer):
    """Takes what a ``Writer`` takes and writes nothing: of the processes of one run, all but the leader have it."""

    def __init__(self):
        pass

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        pass

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pass

    def text(self, step: int, texts: Mapping[str, str]) -> None:
        pass

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        pass

    def flush(self) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal into a line for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def describe_hparams(folder: Path, values: Mapping[str, Sequence[Any]], metrics: Sequence[str]) -> None:
    """Says which columns TensorBoard's HParams table has for the runs below a folder.

    Args:
      folder: that TensorBoard is given; what was said there before is replaced.
      values: of each setting that varies, by dotted name.
      metrics: names of scalars.

    Raises:
      UserError: the folder cannot be written.
    """
    with _writing(folder):
        for old in folder.glob("*tfevents*"):
            old.unlink()
        if not values or not metrics:
            return  # TensorBoard then shows every setting and scalar that it finds
        first = {name: _hparam(found[0]) for name, found in values.items()}
        experiment, _, _ = tensorboard_summary.hparams(first, dict.fromkeys(metrics))
        events = EventsWriter(str(folder / "events"))
        events.write_event(Event(step=0, wall_time=time.time(), summary=experiment))
        events.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl``: one dictionary per line with ``step``, ``time`` (Unix seconds) and the metrics.

    A last line that a killed or still running process has not finished is left out. Non-finite numbers are floats.

    Raises:
      UserError: the file is missing, or a line before the last is not a JSON object with a step (naming the line).
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = decode_floats(json.loads(line))
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                raise ValueError("not a record")
            records.append(record)
        except ValueError as error:
            # After the final newline split() leaves one empty piece: that is the whole file.
            if number < len(lines):
                raise UserError(f"{path}, line {number} is not a record of metrics; is the file damaged?") from error
    return records


def _truncate_metrics(path: Path, last_kept: int) -> list[dict[str, Any]]:
    """Drops records after a step and a torn last line; returns the records kept."""
    if not path.exists():
        return []
    if last_kept < 0:
        write_atomic(path, b"")
        return []
    kept = [record for record in read_metrics(path) if record["step"] <= last_kept]
    text = "".join(json.dumps(encode_floats(record), allow_nan=False) + "\n" for record in kept)
    if text.encode() != path.read_bytes():
        write_atomic(path, text.encode())
    return kept


def _number(name: str, value: Any) -> int | float:
    array = np.asarray(value)
    if array.size != 1 or (array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16"):
        raise UserError(f"metric {name!r} is {array.dtype}{list(array.shape)}, must be a single number")
    number = array.reshape(()).item()
    return int(number) if isinstance(number, bool) else number


def _hparam(value: Any) -> bool | int | float | str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value if not isinstance(value, float) or np.isfinite(value) else str(value)
    return "none" if value is None else str(value)
