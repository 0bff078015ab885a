"""Original files of TFDS sets: which a set needs, which are there, and putting them into TFDS's download cache.

The cache's rule (TFDS 4.9): the file of a URL is ``downloads/<name made from URL and sha256>`` with an ``.INFO`` beside
it, and is then trusted as it is. So everything is checked on the way in.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pathlib
import shutil
import tempfile
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from genjax.data import cifar10
from genjax.types import UserError

_BLOCK = 1 << 20


def missing(builder: Any, downloads: pathlib.Path, folders: Sequence[pathlib.Path]) -> list[str]:
    """Names of the files registered for the set that are neither in TFDS's cache nor in ``folders``."""
    return [
        file_name(url, info)
        for url, info in (builder.url_infos or {}).items()
        if not _in_cache(builder, downloads, url, info) and _find(file_name(url, info), folders) is None
    ]


def file_name(url: str, info: Any) -> str:
    """The name under which the file of ``url`` is known to those who downloaded it."""
    return info.filename or os.path.basename(urllib.parse.unquote(urllib.parse.urlparse(url).path))


@contextlib.contextmanager
def placed(builder: Any, downloads: pathlib.Path, folders: Sequence[pathlib.Path]) -> Iterator[list[str]]:
    """Puts the original files of a set into TFDS's download cache, and takes them out again if the body fails.

    Args:
      builder: the set's builder; its ``url_infos`` say what is needed, with size and sha256.
      downloads: TFDS's download folder.
      folders: where to look, in this order. A registered plain file may be there as ``<name>.gz``.

    Yields:
      Lines that say what was placed.

    Raises:
      UserError: files missing, or of the wrong size or checksum (names them); then nothing was placed.
    """
    needed = {u: i for u, i in (builder.url_infos or {}).items() if not _in_cache(builder, downloads, u, i)}
    absent = missing(builder, downloads, folders)
    # The configs of a set share one list of files; which of them this config wants, only the builder knows.
    if absent and (not builder.builder_configs or len(absent) == len(builder.url_infos)):
        looked = ", ".join(str(folder) for folder in folders)
        raise UserError(f"prepare: {builder.name} lacks {', '.join(absent)}; looked in {looked}")
    if not builder.url_infos and not any(folder.is_dir() for folder in folders):
        how = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "no instructions").split())
        raise UserError(f"prepare: TFDS registers no files for {builder.name}; its instructions: {how}")
    downloads.mkdir(parents=True, exist_ok=True)
    lines, new = [], []
    try:
        with tempfile.TemporaryDirectory(dir=downloads, prefix="placing.") as scratch:
            staged = []
            for number, (url, info) in enumerate(needed.items()):
                found = _find(file_name(url, info), folders)
                if found is not None:
                    target = pathlib.Path(scratch, str(number))
                    lines.append(_stage(found, target, file_name(url, info), info))
                    staged.append((url, info, target))
            for url, info, target in staged:
                new += _commit(builder, downloads, url, info, target)
        yield lines
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def _cache_path(downloads: pathlib.Path, url: str, info: Any) -> pathlib.Path:
    from tensorflow_datasets.core.download import resource

    return downloads / resource.get_dl_fname(url, info.checksum)


def _info_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".INFO")


def _in_cache(builder: Any, downloads: pathlib.Path, url: str, info: Any) -> bool:
    path = _cache_path(downloads, url, info)
    # TFDS itself downloads into a folder for each set; both places count.
    return any(p.exists() and _info_path(p).exists() for p in (path, downloads / builder.name / path.name))


def _find(name: str, folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The file ``name``, or ``name.gz``, or the folder from which ``name`` can be built."""
    for folder in folders:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    if name == cifar10.ARCHIVE:
        return next((folder for folder in folders if cifar10.is_tiled(folder)), None)
    return None


def _stage(found: pathlib.Path, target: pathlib.Path, name: str, info: Any) -> str:
    """Writes the checked original to ``target`` and says what was done."""
    if found.is_dir():
        cifar10.build_archive(found, target)
        return f"built {name} from the tiled batches in {found} (each batch has the original's sha256)"
    packed = found.name == f"{name}.gz"
    try:
        with gzip.open(found) if packed else open(found, "rb") as source, open(target, "wb") as sink:
            size, digest = _copy(source, sink)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"prepare: can't read {found}: {error}") from error
    if size != int(info.size):
        raise UserError(f"prepare: {found} is not the original: it has {size} bytes, not {int(info.size)}")
    if digest != info.checksum:
        raise UserError(f"prepare: {found} is not the original: its sha256 is {digest}, not {info.checksum}")
    return f"{'unpacked' if packed else 'copied'} {found} (size and sha256 as published)"


def _copy(source: IO[bytes] | gzip.GzipFile, sink: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
        sink.write(block)
    return size, digest.hexdigest()


def _commit(builder: Any, downloads: pathlib.Path, url: str, info: Any, staged: pathlib.Path) -> list[pathlib.Path]:
    """Moves a staged file to its place in the cache; returns the new paths."""
    from etils import epath
    from tensorflow_datasets.core.download import resource

    path = _cache_path(downloads, url, info)
    shutil.move(staged, path)
    resource.write_info_file(
        url=url,
        path=epath.Path(path),
        dataset_name=builder.name,
        original_fname=file_name(url, info),
        url_info=info,
    )
    return [path, _info_path(path)]
