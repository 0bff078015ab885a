"""Files that are whole or not there, JSON that any reader understands, and checksums.

Numbers that JSON has no word for are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``;
``read_json`` turns them back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genjax.types import UserError

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
RECORD = "_CHECKPOINT_METADATA"  # in the folder of a checkpoint: Orbax's JSON, where it keeps what a caller adds
_FILES = "files.json"  # {path: [bytes, CRC-32]}


def encode_floats(value: Any) -> Any:
    """``value`` as plain JSON types: tuples become lists, NumPy scalars numbers, non-finite floats strings.

    Raises:
      TypeError: something in it has no JSON form; the message names the dotted key.
    """
    return _encode(value, "")


def _encode(value: Any, key: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(k): _encode(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v, f"{key}.{i}" if key else str(i)) for i, v in enumerate(value)]
    if hasattr(value, "tolist"):  # NumPy and jax arrays and scalars
        return _encode(value.tolist(), key)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{key or 'the value'} is of type {type(value).__name__}, which JSON cannot hold")


def decode_floats(value: Any) -> Any:
    """The inverse of ``encode_floats`` for non-finite floats: the three strings become floats again."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: decode_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode_floats(item) for item in value]
    return value


def write_atomic(path: str | os.PathLike[str], data: bytes, parents: bool = True) -> None:
    """Writes a file so that a reader, or a kill at any moment, sees the old content or the new, never a part.

    Args:
      path: where.
      data: all of it.
      parents: whether missing folders are made. Not in the folder of a run: it is there, unless its drive is gone.

    Raises:
      UserError: it cannot be written (permissions, full disk, a folder in the way or missing).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error says why
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: str | os.PathLike[str], value: Any, parents: bool = True) -> None:
    """Writes ``value`` atomically as JSON, keys in their own order, indented by 2, with a newline at the end.

    ``parents`` is about missing folders, as in ``write_atomic``.

    Raises:
      UserError: it cannot be written, or holds something JSON cannot.
    """
    try:
        text = json.dumps(encode_floats(value), indent=2, allow_nan=False)
    except TypeError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    write_atomic(path, (text + "\n").encode(), parents)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads what ``write_json`` wrote. Raises UserError where the file is missing, unreadable or not JSON."""
    try:
        return decode_floats(json.loads(Path(path).read_text()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # covers malformed JSON and malformed UTF-8
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_record(path: str | os.PathLike[str], *members: str) -> dict[str, Any]:
    """``read_json`` of an object that has the given members; UserError too where it is anything else."""
    record = read_json(path)
    missing = [name for name in members if not isinstance(record, dict) or name not in record]
    if missing or not isinstance(record, dict):
        what = f"no record with {', '.join(map(repr, missing))}" if missing else "no record"
        raise UserError(f"{path} is {what}; is the file damaged?")
    return record


def fingerprint(path: Path) -> list[int]:
    """Size in bytes and CRC-32 of a file."""
    size = checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return [size, checksum]


def write_fingerprints(folder: Path) -> None:
    """Notes the size and checksum of every file below a folder in ``files.json`` there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / _FILES, {str(path.relative_to(folder)): fingerprint(path) for path in paths})


def settle(folder: Path) -> None:
    """Makes the folder of a finished checkpoint last: when this returns, it is on the disk and has its fingerprints.

    One that has them already is left as it is.

    Raises:
      OSError, UserError: something can't be read or written.
    """
    if not (folder / _FILES).exists():
        sync(*folder.rglob("*"))
        write_fingerprints(folder)
        sync(folder, folder.parent)


def sync(*paths: Path) -> None:
    """Returns when the content of files, and the names in folders, would survive a power cut; raises OSError."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that can't do it for folders
                raise
        finally:
            os.close(descriptor)


def verify(folder: Path, up_to: int | None = None) -> None:
    """Compares files with what ``write_fingerprints`` noted: all sizes, and the content of those up to a size in bytes.

    A folder without notes, whose writer was killed before it made them, passes if its record can be read: a power cut
    may have left it empty.

    Raises:
      OSError, ValueError: a file is missing, has another size or another content.
    """
    if not (folder / _FILES).exists():
        _check_record(folder)
        return
    for name, (size, checksum) in _noted(folder).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"file {name} is missing")
        if path.stat().st_size != size:
            raise ValueError(f"file {name} has {path.stat().st_size} bytes, was written with {size}")
        if (up_to is None or size <= up_to) and fingerprint(path) != [size, checksum]:
            raise ValueError(f"file {name} is not as it was written")


def _noted(folder: Path) -> dict[str, list[int]]:
    """What ``write_fingerprints`` wrote; ValueError for anything else."""
    noted = json.loads((folder / _FILES).read_text())
    numbers = lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int for n in v)  # noqa: E731
    if not isinstance(noted, dict) or not all(map(numbers, noted.values())):
        raise ValueError(f"file {_FILES} does not hold sizes and checksums")
    return noted


def _check_record(folder: Path) -> None:
    os.stat(folder)  # it must be there
    try:
        record = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        os.stat(folder)  # a live training may have removed it between
        raise ValueError(f"file {RECORD} is missing") from None
    except ValueError:
        raise ValueError(f"file {RECORD} is not valid JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("custom_metadata"), dict):
        raise ValueError(f"file {RECORD} holds no record")


@contextlib.contextmanager
def folder_lock(folder: Path, *, exclusive: bool) -> Iterator[bool]:
    """Holds an advisory lock on a folder that exists; readers share it, a remover needs it alone.

    Yields:
      Whether the lock could be had at once. The kernel drops it when the process ends.

    Raises:
      OSError: there is no such folder (any more).
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        except OSError:
            held = True  # a file system without locks: go on without
        os.stat(folder)  # it may have been renamed between opening and locking
        yield held
    finally:
        os.close(descriptor)


class Place:
    """A folder as it is now, to be recognised later.

    Where a drive is unmounted under a running training, its path leads to what lay beneath the mount point, and files
    written there are lost from view as soon as the drive is back.

    Args:
      folder: one that exists.
    """

    def __init__(self, folder: Path):
        self._folder, self._was = folder, os.stat(folder)

    def check(self) -> None:
        """Raises UserError unless the path still leads to the same folder."""
        try:
            same = os.path.samestat(self._was, os.stat(self._folder))
        except OSError as error:
            raise UserError(f"folder {self._folder} is gone: {reason(error)}") from error
        if not same:
            raise UserError(f"folder {self._folder} is another than before: its drive was unmounted, or it was moved")


def remove_leftovers(folder: Path, alone: bool = False) -> None:
    """Removes the temporary files of ``write_atomic`` in a folder whose processes are gone.

    Args:
      folder: where; it need not exist.
      alone: whether nobody else writes there now, so that all are left over. The number of a process that is gone may
        be somebody's again, and in a container it usually is.
    """
    for path in folder.glob(".*.tmp"):
        process = path.name.split(".")[-2]
        if alone or (process.isdigit() and process.isascii() and not _runs(int(process))):
            with contextlib.suppress(OSError):
                path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # somebody else's
    return True


def reason(error: BaseException) -> str:
    """The root cause in one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number := re.search(r"os_error_code='(\d+)'", str(error)):  # by the library that writes Orbax's arrays
        return os.strerror(int(number[1]))
    text = " ".join(str(error).split())
    text = text if len(text) <= 160 else text[:157] + "..."
    return text if type(error) in (ValueError, UserError) else f"{type(error).__name__}: {text}"
