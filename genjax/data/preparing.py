"""From original files to a prepared TFDS set (array_record), without a network.

Reading a prepared set needs no TensorFlow, preparing one does: TFDS's builders extract and encode with it. So a process
that trains never prepares; ``prepare_if_possible`` starts another one.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from genjax.data import originals
from genjax.types import UserError

INSTALL = "pip install 'genjax[prepare]'"


def data_root(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """TFDS's folder: ``data_dir``, or else $TFDS_DATA_DIR, or else ~/tensorflow_datasets; ``~`` is expanded."""
    # TFDS reads the variable once, at import, and leaves its ~ alone.
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(os.fspath(chosen)).expanduser().absolute()


def open_builder(name: str, root: pathlib.Path, **options: Any) -> Any:
    """The TFDS builder of ``name``, prepared or not, from the library or (a set of one's own) the files in ``root``.

    Raises:
      UserError: no such set or config; TFDS can't read what is in ``root``.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered, visibility

    if not isinstance(name, str) or not name:
        raise UserError(f"tfds: the name of a set is {name!r}; it must be a name such as 'fashion_mnist'")
    # Community sets are looked up on the network, so here they don't exist.
    with visibility.set_availables_tmp([visibility.DatasetType.TFDS_PUBLIC]):
        try:
            if name.startswith("huggingface:"):
                raise registered.DatasetNotFoundError(name)
            return tfds.builder(name, data_dir=str(root), **options)
        except registered.DatasetNotFoundError as error:
            known = tfds.list_builders(with_community_datasets=False)
            close = difflib.get_close_matches(name.split("/")[0], known, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "no set has a similar name"
            raise UserError(f"tfds: no data set {name!r} in TFDS or in {root}; {hint}") from error
        except Exception as error:  # whatever a builder of somebody else's raises
            configs = _configs(name.split("/")[0])
            known = f"; its configs: {', '.join(configs)}" if configs and "/" in name else ""
            raise UserError(f"tfds: can't open {name!r} in {root}: {one_line(error)}{known}") from error


def _configs(base: str) -> list[str]:
    """Names of the configs of a set of TFDS's own, empty when it has none or doesn't exist."""
    import tensorflow_datasets as tfds

    try:
        return list(tfds.builder_cls(base).builder_configs)
    except Exception:  # the failure that led here is the one to report
        return []


def is_prepared(builder: Any) -> bool:
    """Whether the set of ``builder`` is on disk with at least one split."""
    return builder.data_path.exists() and bool(builder.info.splits)


def prepare_if_possible(builder: Any, name: str, root: pathlib.Path) -> None:
    """Prepares the set in another process when its original files are in TFDS's folders and TensorFlow is installed.

    Raises:
      UserError: files or TensorFlow missing (says what to run), or preparing failed.
    """
    downloads = root / "downloads"
    command = f"python -m experiments.prepare {name}"
    place = f"--data_dir={root}"
    installed = importlib.util.find_spec("tensorflow") is not None
    first = "" if installed else f"{INSTALL} (preparing needs TensorFlow), then "
    missing, known = originals.missing(builder, downloads, [downloads / "manual"]), builder.url_infos
    if missing or not known:
        raise UserError(
            f"tfds: {name} is not prepared in {root} (no {builder.data_path}); "
            f"with its original files in a folder DIR run: {first}{command} --from=DIR {place}"
        )
    if not installed:
        raise UserError(
            f"tfds: {name} is not prepared in {root}, though its original files are in {downloads}; "
            f"run: {first}{command} {place}"
        )
    package_root = str(pathlib.Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-m", "genjax.data.preparing", name, str(root)],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
    )
    # Another run may have prepared the set at the same time; then all is well.
    if result.returncode and not is_prepared(open_builder(name, root)):
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"tfds: preparing {name} in {root} failed: {reason}; try by hand: {command} {place}")


def prepare(name: str, source: str | None = None, data_dir: str | None = None) -> tuple[Any, list[str]]:
    """Prepares a set as array_record from original files, leaving nothing half-written when that fails.

    Args:
      name: name in TFDS, with a config if it has several.
      source: folder with the original files, under their original names, or in a sub-folder called like the set; a
        plain file may be there gzipped. None: only what TFDS's download cache or its folder for manual downloads holds.
      data_dir: TFDS's folder; see ``data_root``.

    Returns:
      The builder of the prepared set, and lines saying what was done.

    Raises:
      UserError: unknown set, TensorFlow or files missing, a file of the wrong size or checksum, or the builder failed.
    """
    root = data_root(data_dir)
    builder = open_builder(name, root)
    if is_prepared(builder):
        return builder, [f"{name} was already prepared"]
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"prepare: preparing {name} needs TensorFlow; run: {INSTALL}")
    folders = [root / "downloads" / "manual"]
    if source is not None:
        given = pathlib.Path(source).expanduser().absolute()
        if not given.is_dir():
            raise UserError(f"prepare: no folder {given}; --from must be the folder with the original files of {name}")
        folders = [given, given / builder.name, *folders]
    builder = open_builder(name, root, file_format="array_record")
    new_folders = [folder for folder in (root / builder.name, root / "downloads", root) if not folder.exists()]
    done = []
    try:
        with originals.placed(builder, root / "downloads", folders) as done:
            _run_builder(builder, root / "downloads", folders[0])
    finally:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # rmdir removes empty folders only
                folder.rmdir()
    return open_builder(name, root), done


def _run_builder(builder: Any, downloads: pathlib.Path, manual: pathlib.Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # TensorFlow would take all of the accelerator's memory
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=downloads, prefix="extracting.") as scratch, _no_network(builder.name):
        config = tfds.download.DownloadConfig(
            # TFDS keeps what it extracted under the bare file name: with a common folder, its default, mnist could be
            # built from the extracted files of fashion_mnist, which have the same names.
            extract_dir=os.path.join(scratch, "extracted"),
            manual_dir=manual if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else os.path.join(scratch, "none"),
            try_download_gcs=False,
        )
        try:
            with contextlib.redirect_stdout(sys.stderr):
                builder.download_and_prepare(download_dir=downloads, download_config=config)
        except UserError:
            raise
        except Exception as error:  # whatever a builder of somebody else's raises
            raise UserError(f"prepare: TFDS's builder of {builder.name} failed: {one_line(error)}") from error


@contextlib.contextmanager
def _no_network(name: str) -> Iterator[None]:
    """Lets TFDS's download manager use what is in its cache, and refuse everything else."""
    from tensorflow_datasets.core.download import download_manager

    def refuse(manager: Any, resource: Any) -> None:
        raise UserError(f"prepare: the builder of {name} also needs {resource.url}; put it into the --from folder")

    manager: Any = download_manager.DownloadManager
    original = manager._download
    manager._download = refuse
    try:
        yield
    finally:
        manager._download = original


def one_line(error: Exception) -> str:
    """The message of ``error`` on one line, cut when long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."


if __name__ == "__main__":
    try:
        prepare(sys.argv[1], data_dir=sys.argv[2])
    except UserError as failure:
        sys.exit(str(failure))
