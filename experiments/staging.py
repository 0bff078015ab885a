"""A folder whose files appear together, or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from genjax.io.files import folder_lock
from genjax.types import UserError

STAGING = ".export.tmp"


def is_free(out: Path) -> bool:
    """Whether nothing is there, or a folder without files; what ``whole`` was killed in counts as none."""
    return not out.exists() or (out.is_dir() and all(path.name == STAGING for path in out.iterdir()))


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder to write files to, which are in ``out`` when all is done; where something fails, nothing is.

    It stands beside ``out``, or inside where ``out`` is there already, for that may be a drive, or all that one may
    write to. What a killed process left there is removed.

    Raises:
      UserError: ``out`` can't be written to, or another process is writing it.
    """
    there, absent = out.is_dir(), [folder for folder in out.parents if not folder.exists()]
    staging = out / STAGING if there else out.with_name(f".{out.name}{STAGING}")
    with _reason(out):
        staging.mkdir(parents=True, exist_ok=True)
    with folder_lock(staging, exclusive=True) as held:
        if not held:
            raise UserError(f"--out={out} is being written by another process")
        try:
            with _reason(out):
                for left in staging.iterdir():
                    left.unlink()
            yield staging
            with _reason(out):
                _move(staging, out, there)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            for folder in absent:
                with contextlib.suppress(OSError):  # it has files
                    folder.rmdir()


@contextlib.contextmanager
def _reason(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write --out={out}: {error.strerror or error}") from error


def _move(staging: Path, out: Path, there: bool) -> None:
    if not there:
        staging.rename(out)
        return
    names = sorted(path.name for path in staging.iterdir())
    try:
        for name in names:
            (staging / name).rename(out / name)
    except OSError:
        for name in names:
            (out / name).unlink(missing_ok=True)
        raise
