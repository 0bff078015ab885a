"""Reading a file runs nothing: the sources hold no way to do it, and a file that would is refused by every reader."""

from __future__ import annotations

import ast
import gc
import os
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data.arrays import arrays
from genjax.evaluators import features, reference
from genjax.io.checkpoint import Checkpoints
from genjax.io.files import read_json, write_fingerprints
from genjax.io.torch_weights import read_weights
from genjax.io.workdir import Workdir
from genjax.io.writer import Writer, read_metrics
from genjax.types import UserError

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
# File -> what it may do all the same.
EXEMPT = {
    # Reads PyTorch's files with an unpickler that knows a few names, all of which build arrays and dictionaries.
    "genjax/io/torch_weights.py": {"pickle"},
}


def findings(source: str) -> Iterator[tuple[int, str]]:
    """Every (line, word) that could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name) for a in node.names if (name := a.name.split(".")[0]) in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            name = (node.module or "").split(".")[0]
            if name in MODULES:
                yield node.lineno, name
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in BUILTINS:
                yield node.lineno, called
            if called.split(".")[-1] in ("import_module", "allow_pickle", "read_pickle"):
                yield node.lineno, called
            if called in ("np.load", "numpy.load") and arguments.get("allow_pickle") != "False":
                yield node.lineno, "np.load without allow_pickle=False"
            if arguments.get("allow_pickle", "False") != "False":
                yield node.lineno, "allow_pickle"


def test_no_source_unpickles_or_evaluates():
    paths = [path for folder in ("genjax", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 150
    found = {str(path.relative_to(ROOT)): list(findings(path.read_text())) for path in paths}
    offences = [
        f"{path}:{line}: {word}"
        for path, words in found.items()
        for line, word in words
        if word not in EXEMPT.get(path, ())
    ]
    assert offences == []
    for path, words in EXEMPT.items():  # an exemption that nothing needs must go
        assert words <= {word for _, word in found[path]}, path


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import numpy, dill as d",
        "from marshal import loads",
        "import torch.serialization",
        "eval('1')",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.lib.npyio.NpzFile(file, allow_pickle=flag)",
        "importlib.import_module(name)",
    ],
)
def test_the_scan_sees_each_of_them(line):
    assert len(list(findings(f"x = 1\n{line}\n"))) >= 1
    assert list(findings("import json\nnp.load(path, allow_pickle=False)\nretrieval('1')\n")) == []


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def bomb(tmp_path):
    """The bytes, in both wrappings; afterwards nothing may have run them."""
    marker = tmp_path / "marker"
    yield pickle.dumps({"a": Bomb(marker)}, 2)
    assert not marker.exists()


def as_npz(path: Path, marker: Path, **plain: np.ndarray) -> None:
    np.savez(path, **plain, images=np.array([Bomb(marker)], dtype=object))


def test_the_bomb_goes_off_when_it_is_unpickled(tmp_path):
    data = pickle.dumps(Bomb(tmp_path / "marker"))
    assert "REDUCE" in {opcode.name for opcode, _, _ in pickletools.genops(data)}
    pickle.loads(data)
    assert (tmp_path / "marker").is_dir()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # coroutines that Orbax leaves behind
def test_a_checkpoint_file_replaced_by_one_is_refused(tmp_path, bomb, capfd):
    state = {"w": jnp.ones((50, 50)), "n": jnp.int32(1)}
    abstract = jax.eval_shape(lambda: state)
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state)
    files = [path for path in (folder / "1").rglob("*") if path.is_file() and path.name != "files.json"]
    refused = 0
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(bomb)
        for forged in (False, True):  # the second by somebody who has noted the new checksum, too
            if forged:
                (folder / "1" / "files.json").unlink()
                write_fingerprints(folder / "1")
            try:
                found, _ = Checkpoints(folder, read_only=True).restore(1, abstract)
                assert forged and np.array_equal(found["w"], state["w"])  # Orbax has no use for this file
            except UserError as error:
                assert "\n" not in str(error) and "step 1" in str(error)
                refused += 1
        path.write_bytes(whole)
        (folder / "1" / "files.json").unlink()
        write_fingerprints(folder / "1")
    assert refused >= len(files) + 3
    (folder / "1" / "files.json").write_bytes(bomb)
    with pytest.raises(UserError, match="unreadable"):
        Checkpoints(folder, read_only=True).restore(1, abstract)
    gc.collect()  # them
    assert capfd.readouterr().err == ""


def test_every_other_reader_refuses_one(tmp_path, bomb):
    path = tmp_path / "file.npz"
    readers = {
        "weights": lambda: read_weights(path),
        "arrays": lambda: arrays(str(path), "train"),
        "json": lambda: read_json(path),
        "metrics": lambda: read_metrics(path),
        "features": lambda: features.read("digits", path.read_bytes()),
    }
    for wrapped in (False, True):
        if wrapped:
            as_npz(path, tmp_path / "marker", about=np.array("{}"))
        else:
            path.write_bytes(bomb + b"\n")
        for name, read in readers.items():
            with pytest.raises(UserError) as caught:
                read()
            assert "\n" not in str(caught.value), name


def test_a_work_folder_full_of_them_is_refused(tmp_path, bomb):
    for name in ("config.json", "population.json", "metrics.jsonl", "evaluation.json"):
        (tmp_path / name).write_bytes(bomb + b"\n\n")
    with pytest.raises(UserError, match="not valid JSON"):
        Workdir.open(tmp_path)
    with pytest.raises(UserError, match="is not a record"):
        Writer(tmp_path, resume_step=1)


def test_kept_reference_statistics_that_are_one_are_computed_anew(tmp_path, bomb, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compute = lambda: {"mean": np.arange(3.0)}  # noqa: E731
    reference.cached({"a": 1}, compute)
    (kept,) = (tmp_path / "genjax" / "reference").iterdir()
    for data in (bomb, None):
        if data is None:
            kept.unlink()
            as_npz(kept, tmp_path / "marker", facts=np.array('{"a": 1}'), mean=np.array([Bomb(tmp_path / "marker")]))
        else:
            kept.write_bytes(data)
        np.testing.assert_array_equal(reference.cached({"a": 1}, compute)["mean"], np.arange(3.0))
