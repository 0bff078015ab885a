"""How the tests run the commands: as processes of their own, or many in one interpreter (``driver.py``)."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genjax.io.checkpoint import Checkpoints
from genjax.io.events import read_events
from genjax.io.writer import read_metrics
from genjax.tree import named_leaves, nested

ROOT = Path(__file__).parents[2]
VAE, GAN, CLASSIFIER = (
    f"{ROOT}/configs/{name}.py" for name in ("vae/digits_conv", "gan/digits_dcgan", "classifier/digits_cnn")
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command left: exit status, output, and how many programs it compiled (-1 where nobody counted)."""

    status: int
    out: str
    err: str
    compiled: int = -1


def environment(**changes: str) -> dict[str, str]:
    """This process's, with the package importable from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **changes}


def train_arguments(config: str, workdir: Path, *overrides: str, arg: str = "accelerator=cpu,smoke") -> list[str]:
    return [f"--config={config}:{arg}", f"--workdir={workdir}", *overrides]


def start(module: str, *arguments: str, cwd: Path = ROOT, **options: Any) -> subprocess.Popen:
    command = [sys.executable, "-u", "-m", f"experiments.{module}", *arguments]
    usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    return subprocess.Popen(command, cwd=cwd, **(usual | options))


def run(module: str, *arguments: str, cwd: Path = ROOT) -> Answer:
    """One command in a process of its own."""
    process = start(module, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=300)
    return Answer(process.returncode, out, err)


def run_many(commands: Sequence[tuple[str, Sequence[str]]], cwd: Path = ROOT) -> list[Answer]:
    """Commands (module, arguments), one after the other in one fresh interpreter."""
    cases = [{"module": f"experiments.{module}", "arguments": list(args), "cwd": str(cwd)} for module, args in commands]
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("driver.py"))],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    return [Answer(**answer) for answer in json.loads(result.stdout)]


def one_line(answer: Answer) -> str:
    """The line of an error the user can mend."""
    assert answer.status == 2, answer
    lines = answer.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), answer.err
    assert answer.out == ""
    return lines[0]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of modification of every file below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def records(workdir: Path) -> list[Mapping[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    clocked = lambda name: name == "time" or name.startswith("speed/")  # noqa: E731
    return [{k: v for k, v in r.items() if not clocked(k)} for r in read_metrics(workdir / "metrics.jsonl")]


def checkpoint_steps(workdir: Path) -> list[int]:
    return Checkpoints(workdir / "checkpoints", read_only=True).steps()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def checkpoint_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """The arrays of the latest checkpoint by path, wherever they lay when they were saved."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.steps()[-1]
        abstract = {}
        for name, described in checkpoints._record(step)["leaves"].items():
            dtype, _, sides = described.rstrip("]").partition("[")
            abstract[name] = jax.ShapeDtypeStruct([int(side) for side in sides.split(",") if side], dtype)
        arrays, _ = checkpoints.restore_partial(step, nested(abstract))
    return {name: np.asarray(leaf) for name, leaf in named_leaves(arrays).items()}


def shown_twice(workdir: Path) -> list[tuple[str, int]]:
    """The (tag, step) that TensorBoard would show more than once."""
    seen: collections.Counter[tuple[str, int]] = collections.Counter()
    for path in sorted((workdir / "tensorboard").iterdir()):
        for _, event in read_events(path.read_bytes()):
            seen.update((value.tag, event.step) for value in event.summary.value)
    assert seen, f"no events in {workdir}"
    return [key for key, count in seen.items() if count > 1]


def same_run(workdir: Path, whole: Path) -> None:
    """Whether a run that was disturbed left what an undisturbed one did, bit for bit."""
    assert records(workdir) == records(whole)
    found, wanted = checkpoint_arrays(workdir), checkpoint_arrays(whole)
    assert found.keys() == wanted.keys() and {name.partition("/")[0] for name in found} >= {"params", "opt", "ema"}
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes(), name
    assert checkpoint_steps(workdir)[-1] == checkpoint_steps(whole)[-1]
    numbers = [read(path / "evaluation.json")["evaluators"] for path in (workdir, whole)]
    one, other = ({name: p["scalars"] for name, p in each.items()} for each in numbers)
    assert one == other
    pictures = [{path.name: path.read_bytes() for path in each.glob("images/*.png")} for each in (workdir, whole)]
    assert pictures[0] == pictures[1]
    assert shown_twice(workdir) == []
