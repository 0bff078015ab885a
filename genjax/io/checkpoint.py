"""Checkpoints of a training state: atomic, asynchronous, bounded in number, checked before they are read.

Orbax (its v1 interface) writes and reads the arrays; nothing else in the library knows of it. On disk a state is a
nested dictionary of arrays named by their path in the pytree (``params/generator/Dense_0/kernel``), so the containers
a state is made of (dataclasses, named tuples, empty nodes) may change without making old files unreadable. Beside it
lies one JSON record: a manifest (number of the format, config, versions, every leaf's shape and dtype), the metrics and
the caller's metadata. Sizes and checksums of the files are noted when a save is finished, because Orbax reads flipped
bits back without complaint, and complains of a truncated file with pages of its own log.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from genjax.io import leftovers
from genjax.io.damage import Damage
from genjax.io.difference import listed
from genjax.io.files import RECORD, Place, decode_floats, encode_floats, folder_lock, reason, settle, verify
from genjax.io.leader import from_leader, is_leader
from genjax.io.leaves import describe, differences, is_empty, named, with_sharding
from genjax.io.manifest import check_format, manifest
from genjax.io.quiet import quieten_failed_save, quieten_orbax
from genjax.tree import nested
from genjax.types import UserError

Which = int | Literal["latest", "best"]
FORMAT = 1  # of a checkpoint: what the record says and how leaves are named

_SMALL = 1 << 16  # bytes: files whose content is checked whenever anything of a checkpoint is read


class Checkpoints:
    """The checkpoints of one run, one folder per step.

    A save becomes visible by one rename when all of it is on disk, so a process killed at any moment leaves whole
    checkpoints only. Superseded steps are removed after it, in the background too, except while somebody reads them.

    One process may use one object at a time for saving or restoring: Orbax is not safe in several threads.

    Args:
      folder: where the steps lie; created unless ``read_only``. A local (POSIX) path.
      keep_latest: number of newest steps to keep. With 2 there is always an older one to go back to.
      keep_every: steps that are multiples of it are kept for good; None keeps none for being one.
      best_metric: name of the metric whose best step is kept too; None keeps no best step.
      best_mode: whether a smaller ("min") or larger ("max") metric is better. Of equal values the earlier step is best.
      read_only: for evaluation and sampling beside a live training: writes, removes and creates nothing.
      config: of the run, for the manifest.

    Raises:
      UserError: the folder cannot be created, or an argument is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_latest: int = 2,
        keep_every: int | None = None,
        best_metric: str | None = None,
        best_mode: str = "min",
        read_only: bool = False,
        config: Mapping[str, Any] | None = None,
    ):
        if min(keep_latest, 1 if keep_every is None else keep_every) < 1:
            raise UserError(f"checkpoints: keep_latest={keep_latest}, keep_every={keep_every}; must be at least 1")
        if best_mode not in ("min", "max"):
            raise UserError(f"checkpoints: best_mode is {best_mode!r}, must be 'min' or 'max'")
        # Orbax refuses relative paths; symbolic links stay as the user wrote them.
        self.folder = Path(os.path.abspath(folder))
        self.keep_latest, self.keep_every = keep_latest, keep_every
        self.best_metric, self.best_mode, self.read_only = best_metric, best_mode, read_only
        self._pending: tuple[int, Future[None]] | None = None  # the save in flight
        self._worker: ThreadPoolExecutor | None = None
        self._records: dict[int, dict[str, Any]] = {}  # a finished checkpoint never changes
        self._damage = Damage(self.folder)
        self._config = config or {}
        quieten_orbax()
        if not read_only:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._place = Place(self.folder)
                self._remove_leftovers()
            except OSError as error:
                raise UserError(f"checkpoint folder {self.folder} cannot be written: {reason(error)}") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What is there.

    def steps(self) -> list[int]:
        """Finished steps on disk, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(name) for name in os.listdir(self.folder) if name.isascii() and name.isdigit())

    def latest_step(self) -> int | None:
        """The newest finished step, None where there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best_step(self) -> int | None:
        """The step with the best finite value of ``best_metric``; None where no checkpoint has one."""
        best = self._by_metric()
        return best[0] if best else None

    def resume_step(self, say: Callable[[str], None]) -> int | None:
        """The newest step that is whole, for a training to go on from; None where nothing was saved yet.

        Damaged ones behind it are renamed, so that the training can save their steps anew, and named in a line.

        Raises:
          UserError: all are damaged, or one can't be read for now; they stay as they are.
        """
        step = self._damage.newest_whole(self.steps(), say)
        if step is not None:
            settle(self.folder / str(step))  # its training may have been killed before it did
        return step

    def step_before(self, step: int) -> int | None:
        """The newest step before ``step`` that is whole; None where there is none."""
        earlier = (other for other in reversed(self.steps()) if other < step)
        return next((other for other in earlier if self._damage.problem(other) is None), None)

    def give_up(self, step: int) -> None:
        """Renames a step that a run diverges from again and again, so that it goes on from the one before."""
        self._records.pop(step, None)
        self._damage.give_up(step)

    def metadata(self, step: Which) -> dict[str, Any]:
        """The metadata saved with a step. Raises UserError where the step is missing or unreadable."""
        return self._record(self._resolve(step))["metadata"]

    def metrics(self, step: Which) -> dict[str, float]:
        """The metrics saved with a step, empty where it had none. Raises UserError like ``metadata``."""
        return self._record(self._resolve(step))["metrics"]

    def manifest(self, step: Which) -> dict[str, Any]:
        """``{"format", "config", "versions", "leaves"}`` of a step; an older one has the last alone."""
        record = self._record(self._resolve(step))
        return {name: value for name, value in record.items() if name not in ("metrics", "metadata")}

    # Writing.

    def save(
        self,
        step: int,
        state: Any,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> bool:
        """Starts saving and returns as soon as the arrays may be donated or changed.

        Waits for an earlier save that is still running. A step that exists is left as it is, unless ``replace``.

        Args:
          step: the number of finished training steps, at least 0.
          state: any pytree of arrays of numbers or booleans; typed PRNG keys are not accepted.
          metrics: numbers of this step. Only a finite ``best_metric`` among them makes it a candidate for the best.
          metadata: anything JSON can hold.
          replace: the step where it exists already and nobody reads it; it is kept until the new one is whole.

        Returns:
          Whether a save was started.

        Raises:
          UserError: this save could not start, or the one before it failed; training should stop.
        """
        if self.read_only:
            raise UserError(f"checkpoint folder {self.folder} is open for reading only")
        self.wait()
        self._place.check()
        room = lambda: step not in self.steps() or (replace and self._give_way(step, leftovers.put_aside))  # noqa: E731
        try:
            if not from_leader(room):
                return False
        except OSError as error:
            raise self._not_saved(step, error) from error
        leaves = {name: x if isinstance(x, jax.Array) else jnp.asarray(x) for name, x in named(state).items()}
        record = {
            **manifest(FORMAT, self._config),
            "leaves": {name: describe(x) for name, x in leaves.items()},
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "metadata": dict(metadata or {}),
        }
        # Orbax refuses arrays without elements; the record says enough to make them again.
        arrays = nested({name: x for name, x in leaves.items() if x.size})
        if not arrays:
            raise UserError(f"checkpoint step {step}: the state has no array to save")
        try:
            response = ocp.save_async(str(self.folder / str(step)), arrays, custom_metadata=encode_floats(record))
        except Exception as error:
            raise self._not_saved(step, error) from error
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = (step, self._worker.submit(self._finish, step, response))
        return True

    def wait(self) -> None:
        """Returns when the save in flight is on disk and what it supersedes is gone; raises UserError if it failed."""
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except Exception as error:
            raise self._not_saved(step, error) from error

    def close(self) -> None:
        """``wait``, and ends the background thread; calling it twice is harmless."""
        try:
            self.wait()
        finally:
            if self._worker is not None:
                self._worker.shutdown()
                self._worker = None

    # Reading.

    def restore(self, step: Which, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """Reads a state back, bit for bit.

        Args:
          step: a step, "latest" or "best". Of the last two, damaged ones are passed over with a warning.
          abstract_state: the state's pytree with ``jax.ShapeDtypeStruct`` (or array) leaves. A leaf's sharding says
            where the array goes; without one it goes to the first device.

        Returns:
          The state, with the structure of ``abstract_state``, and the step's metadata.

        Raises:
          UserError: no such step; the stored tree differs from ``abstract_state`` (naming the paths); or the files
            are unreadable (naming the step before).
        """
        return self._restore(step, abstract_state, partial=False)

    def restore_partial(self, step: Which, abstract_part: Any) -> tuple[Any, dict[str, Any]]:
        """``restore`` for part of the state, e.g. ``{"params": ..., "ema": ...}``; other stored paths are not read."""
        return self._restore(step, abstract_part, partial=True)

    def _restore(self, which: Which, abstract: Any, *, partial: bool) -> tuple[Any, dict[str, Any]]:
        self.wait()
        for attempt in range(10):
            step = self._resolve(which)
            try:
                with folder_lock(self.folder / str(step), exclusive=False):
                    record = self._record(step)
                    self._check_fits(step, record["leaves"], abstract, partial=partial)
                    return self._load(step, record["leaves"], abstract), record["metadata"]
            except FileNotFoundError as error:
                # A live training has just removed it: look again what is "latest" or "best" now.
                if isinstance(which, int) or attempt == 9:
                    raise self._unreadable(step, error) from error
        raise AssertionError("unreachable")

    def _load(self, step: int, stored: Mapping[str, str], abstract: Any) -> Any:
        wanted = named(abstract)
        shaped = {name: with_sharding(leaf) for name, leaf in wanted.items()}
        request = {name: shaped.get(name, ocp.PLACEHOLDER) for name, text in stored.items() if not is_empty(text)}
        loaded: dict[str, Any] = {}
        if any(leaf is not ocp.PLACEHOLDER for leaf in request.values()):
            try:
                problem = self._damage.problem(step)
                if problem is not None:
                    raise ValueError(problem)
                loaded = named(ocp.load(str(self.folder / str(step)), nested(request)))
            except Exception as error:
                raise self._unreadable(step, error) from error
        empty = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)  # noqa: E731
        leaves = [loaded[name] if name in request else empty(leaf) for name, leaf in shaped.items()]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves)

    def _check_fits(self, step: int, stored: Mapping[str, str], abstract: Any, *, partial: bool) -> None:
        if found := differences(stored, abstract, partial=partial):
            raise UserError(
                f"checkpoint step {step} in {self.folder} does not fit this model: {listed(found)} "
                "(use the config it was trained with, or another --workdir)"
            )

    # Inside.

    def _resolve(self, which: Which) -> int:
        steps = self.steps()
        if which == "latest":
            if steps:
                return self._damage.first_whole(steps[::-1])
            raise UserError(f"no checkpoint in {self.folder}")
        if which == "best":
            # One whose record can't be read may have been the best: in front, so that it is warned of.
            ranked = [step for step in steps if self._metrics_or_none(step) is None] + self._by_metric()
            if self._by_metric():
                return self._damage.first_whole(ranked)
            seen = sorted({name for step in steps for name in self._metrics_or_none(step) or ()})
            raise UserError(
                f"no best checkpoint in {self.folder}: none has a finite {self.best_metric!r} "
                f"(metrics recorded: {', '.join(seen) or 'none'}); use 'latest' or a step"
            )
        if isinstance(which, int) and which in steps:
            return which
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(f"no checkpoint {which!r} in {self.folder}; there are: {there} (or 'latest', 'best')")

    def _by_metric(self) -> list[int]:
        """The steps that have a finite ``best_metric``, the best first; of equal ones the earlier."""
        values = {step: value for step in self.steps() if (value := self._metric(step)) is not None}
        return sorted(values, key=lambda step: (values[step], step))

    def _record(self, step: int) -> dict[str, Any]:
        if step not in self._records:
            try:
                # Read past Orbax, whose own reader also opens every array and keeps state that a save in the background
                # is using.
                verify(self.folder / str(step), up_to=_SMALL)
                record = decode_floats(json.loads((self.folder / str(step) / RECORD).read_text())["custom_metadata"])
                check_format(record, FORMAT, f"checkpoint step {step} in {self.folder}")
                self._records[step] = record | {key: record[key] for key in ("leaves", "metrics", "metadata")}
            except UserError:
                raise
            except Exception as error:
                raise self._unreadable(step, error) from error
        return self._records[step]

    def _metrics_or_none(self, step: int) -> dict[str, float] | None:
        try:
            return self._record(step)["metrics"]
        except UserError:
            return None  # a broken step, or one a live training has just removed

    def _metric(self, step: int) -> float | None:
        """The metric to minimise, None where the step has no finite one."""
        value = (self._metrics_or_none(step) or {}).get(self.best_metric) if self.best_metric else None
        if value is None or not math.isfinite(value):
            return None
        return value if self.best_mode == "min" else -value

    def _finish(self, step: int, response: Any) -> None:
        """Runs in the background: waits for the commit, notes the checksums, removes what is superseded."""
        response.result()
        self._place.check()
        if is_leader():
            settle(self.folder / str(step))
            leftovers.remove_replaced(self.folder / str(step))
            self._prune()

    def _prune(self) -> None:
        steps = self.steps()
        keep = {*steps[-self.keep_latest :], self.best_step()}
        for step in steps:
            if step not in keep and not (self.keep_every and step % self.keep_every == 0):
                self._remove(step)  # one that somebody reads has its turn with the next save

    def _remove(self, step: int) -> bool:
        """Whether the step could be removed: not while somebody is reading it."""
        return self._give_way(step, leftovers.remove)

    def _give_way(self, step: int, how: Callable[[Path], None]) -> bool:
        with folder_lock(self.folder / str(step), exclusive=True) as alone:
            if not alone:
                return False
            how(self.folder / str(step))
        self._records.pop(step, None)
        self._damage.forget(step)
        return True

    def _remove_leftovers(self) -> None:
        """Removes what a killed process left half-written or half-removed."""
        if is_leader():
            leftovers.tidy(self.folder)

    def _not_saved(self, step: int, error: Exception) -> UserError:
        quieten_failed_save()
        try:
            self._remove_leftovers()  # a full disk has better use for the space
            self._place.check()
        except (OSError, UserError) as gone:  # what Orbax says then is no help
            error = gone
        return UserError(f"checkpoint step {step} could not be saved in {self.folder}: {reason(error)}")

    def _unreadable(self, step: int, error: Exception) -> UserError:
        earlier = [other for other in self.steps() if other < step]
        advice = (
            f"the step before it is {earlier[-1]}: name that step, or remove {self.folder / str(step)} to go back to it"
            if earlier
            else "there is no earlier step"
        )
        return UserError(f"checkpoint step {step} in {self.folder} is unreadable ({reason(error)}); {advice}")
