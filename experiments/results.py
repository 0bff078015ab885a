"""The small form of finished runs, and the page made of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genjax.io.files import read_json, write_json
from genjax.io.images import save_png
from genjax.io.workdir import Workdir
from genjax.io.writer import read_metrics
from genjax.types import UserError

_WORK = "evaluations_per_sample"


def collect(path: Path, target: Path) -> None:
    """Copies a run's config, results, evaluation curves, pictures and what ``experiments.curve`` made of it.

    Paths of the machine it ran on are left behind.

    Raises:
      UserError: no work folder, or a run that is not finished.
    """
    workdir = Workdir.open(path)
    if not workdir.evaluation.exists():
        raise UserError(f"{path} has no evaluation.json; accepted: the work folder of a finished run")
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "config.json", without_paths(workdir.read_config()))
    write_json(target / "evaluation.json", without_paths(read_json(workdir.evaluation)))
    environment = read_json(workdir.environment)
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


def command(environment: Mapping[str, Any]) -> str:
    """The command line that started the run."""
    return " ".join(["python -m experiments.train", *environment["argv"][1:]])


def main_numbers(evaluation: Mapping[str, Any]) -> str:
    """The numbers of every evaluator, with their 95 % interval or standard error where it is known."""
    parts = []
    for record in evaluation["evaluators"].values():
        if "protocol" in record:
            parts.append(f"under {record['protocol']}")
        intervals = record.get("intervals_95", {})
        for name, value in record["scalars"].items():
            if "/" in name:
                continue
            error = record.get("standard_error", {}).get(name)
            interval = record.get(f"{name}_interval_95")
            if interval:
                parts.append(f"{name} {value:.2%} [{interval[0]:.2%}, {interval[1]:.2%}]")
            elif name in intervals:
                low, high = intervals[name]
                parts.append(f"{name} {value:.4g} [{low:.4g}, {high:.4g}]")
            else:
                parts.append(f"{name} {value:.4g}" + (f" ± {error:.2g}" if error is not None else ""))
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def page(runs: list[Path], relative_to: Path) -> str:
    """The whole of RESULTS.md."""
    lines = [
        "# Results",
        "",
        "Made by `python -m experiments.report`; do not edit. Numbers are of the last checkpoint on the test split,",
        "± is the standard error over its examples, brackets are 95 % intervals. Times include evaluations during the",
        "run and depend on what else the machine does.",
        "",
        "| run | data | result | steps | training | device |",
        "|---|---|---|---:|---:|---|",
    ]
    sections = []
    for run in runs:
        config, evaluation, environment = (
            read_json(run / f"{name}.json") for name in ("config", "evaluation", "environment")
        )
        data = config["data"]["options"].get("name", config["data"]["source"])
        device = f"{environment['backend']} ({environment['device_kind']} x {environment['device_count']})"
        lines.append(
            f"| [{run.name}](#{run.name}) | {data} | {main_numbers(evaluation)} | {evaluation['step']:,} | "
            f"{_duration(evaluation['training_seconds'])} | {device} |"
        )
        sections += _section(run, config, evaluation, environment, relative_to)
    return "\n".join([*lines, "", *sections]).rstrip() + "\n"


def _section(run: Path, config: Any, evaluation: Any, environment: Any, relative_to: Path) -> list[str]:
    versions = environment["packages"]
    commit = environment["git"]
    sampled = f", {evaluation[_WORK]} network evaluations a sample" if _WORK in evaluation else ""
    if "settings" in evaluation:
        sampled += ", " + ", ".join(f"{name}={value}" for name, value in evaluation["settings"].items())
    if weak := evaluation.get("guide"):
        sampled += f", guided by {weak['run']} (step {weak['step']}) at {weak['scale']:g}"
    lines = [
        f"## {run.name}",
        "",
        f"    {command(environment)}",
        "",
        f"Family {evaluation['family']}, seed {config['seed']}, {evaluation['weights']} weights{sampled}, "
        f"jax {versions['jax']}, flax {versions['flax']}, Python {environment['python']}"
        + (f", commit {commit['commit'][:12]}{' with changes' if commit['dirty'] else ''}" if commit else "")
        + ".",
        "",
    ]
    for name, record in evaluation["evaluators"].items():
        facts = {key: value for key, value in record.items() if isinstance(value, int | float | str)}
        numbers = ", ".join(f"{key} {value:.5g}" for key, value in record["scalars"].items() if "/" not in key)
        lines.append(f"- **{name}**: {numbers} ({', '.join(f'{key} {value}' for key, value in facts.items())})")
        shares = {key.partition("/")[2]: value for key, value in record["scalars"].items() if key.startswith("share/")}
        if shares:
            lines.append(f"  - shares: {', '.join(f'{key} {value:.1%}' for key, value in shares.items())}")
    lines.append("")
    if (run / "curve.md").exists():
        lines += [(run / "curve.md").read_text().rstrip(), ""]
    for picture in sorted(run.glob("*.png")):
        shown = os.path.relpath(picture, relative_to)
        lines += [f"![{picture.stem} of {run.name}]({shown})", ""]
    return lines
