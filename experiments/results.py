"""The small form of finished runs: what a reader needs of each, in a folder that holds no path of a machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.groups import REFERENCES
from experiments.references import checked, declared
from genjax.io.files import read_json, write_json
from genjax.io.images import save_png
from genjax.io.workdir import POPULATION, Workdir, members_of
from genjax.io.writer import read_metrics
from genjax.types import UserError


def targets(paths: Sequence[str | os.PathLike[str]], folder: Path) -> dict[Path, Path]:
    """Where in ``folder`` each run goes: under its own name, members of a population behind the name of that.

    Raises:
      UserError: two runs would go to one place.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        members = members_of(path) if (path / POPULATION).is_file() else [None]
        for member in members:
            run = path if member is None else path / member
            above = run.parent if (run.parent / POPULATION).is_file() else None
            name = run.absolute().name if above is None else f"{above.absolute().name}_{run.name}"
            if run not in found and folder / name in found.values():
                raise UserError(f"{run}: another run of the name {name} is given; accepted: each name once")
            found[run] = folder / name
    return found


def collect(path: Path, target: Path) -> None:
    """Copies a run's config, results, evaluation curves, pictures and what ``experiments.curve`` made of it.

    Paths of the machine it ran on are left behind. What lay at ``target`` before is replaced.

    Raises:
      UserError: no work folder, a run that is not finished, or references in its config file that fit no number of it.
    """
    workdir = Workdir.open(path)
    if not workdir.evaluation.exists():
        raise UserError(f"{path} has no evaluation.json; accepted: the work folder of a finished run")
    environment = read_json(workdir.environment)
    _write_references(target, _declared(workdir.path) or [])
    write_json(target / "config.json", without_paths(workdir.read_config()))
    write_json(target / "evaluation.json", without_paths(read_json(workdir.evaluation)))
    write_json(target / "environment.json", without_paths([*environment.pop("earlier"), environment][0]))
    curves: dict[str, list[list[float]]] = {}
    for record in read_metrics(workdir.metrics):
        for name, value in record.items():
            if name.startswith("eval/"):
                curves.setdefault(name, []).append([record["step"], value])
    write_json(target / "curves.json", curves)
    save_png(target / "curves.png", curve_figure(curves))
    curve = workdir.path / "curve"
    if (curve / "curve.json").exists():
        write_json(target / "curve.json", without_paths(read_json(curve / "curve.json")))
    for file in (*sorted(workdir.images.glob("*.png")), *curve.glob("curve.md"), *curve.glob("curve.png")):
        shutil.copyfile(file, target / file.name)


def refresh_references(run: Path) -> None:
    """Writes what the config file of a collected run declares now; where that file is not there, all stays as it is.

    The file is looked for below the current folder.

    Raises:
      UserError: the file declares something that is no reference, or a reference that fits no number of the run.
    """
    found = _declared(run)
    if found is not None:
        _write_references(run, found)


def _declared(run: Path) -> list[dict[str, Any]] | None:
    environment = read_json(run / "environment.json")
    first = [*environment["earlier"], environment][0] if "earlier" in environment else environment
    found = declared(first["argv"], read_json(run / "config.json"), Path.cwd())
    if found:
        checked(found, read_json(run / "evaluation.json"), str(run))
    return found


def _write_references(target: Path, found: list[dict[str, Any]]) -> None:
    if found:
        write_json(target / REFERENCES, found)
    else:
        (target / REFERENCES).unlink(missing_ok=True)


def without_paths(value: Any) -> Any:
    """``value`` with every absolute path cut down to its last part."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str):
        name, separator, path = value.partition("=") if value.startswith("--") else ("", "", value)
        return name + separator + (Path(path).name if os.path.isabs(path) else path)
    return value


def curve_figure(curves: Mapping[str, list[list[float]]]):
    """A small plot of each evaluation metric against the step, uint8 ``[H, W, 3]``."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {name: points for name, points in curves.items() if len(points) > 1}
    figure = Figure(figsize=(3.2 * max(len(shown), 1), 2.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for position, (name, points) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(1, len(shown), position)
        axes.plot(*zip(*points, strict=True))
        axes.set_title(name.removeprefix("eval/"), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("step", fontsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
