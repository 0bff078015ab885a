"""Quality against work: samplers at several numbers of steps, their samples before one judge, as table and figure."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.restore import Restored
from genjax.evaluators.judged import Gaussian, Judged
from genjax.train.evaluation import context_of
from genjax.types import UserError

_NAME, _STEPS = "model.sampler.name", "model.sampler.num_steps"
_TRAINING = "frechet_distance_of_training_images"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A sampler and its steps, with the network evaluations that one sample then takes."""

    sampler: str
    num_steps: int
    evaluations: int


@dataclasses.dataclass(frozen=True)
class Row:
    """What a cell's samples are worth and what they cost; ``label_accuracy`` None where nothing was asked for."""

    cell: Cell
    frechet_distance: float
    label_accuracy: float | None
    seconds_per_image: float

    def record(self) -> dict[str, Any]:
        """As JSON-able values."""
        values = dataclasses.asdict(self)
        cell = values.pop("cell")
        return {**cell, **{name: value for name, value in values.items() if value is not None}}


def cells(run: Restored, sampler: str, budgets: Sequence[int]) -> list[Cell]:
    """For each budget the most steps whose evaluations do not exceed it, each of them once; none below one step.

    Raises:
      UserError: no such sampler, one that is not for this model, or one that has no number of steps.
    """
    if run.with_settings({_NAME: sampler}).plan.family.evaluations is None:
        raise UserError(f"--samplers={sampler}: the data decide its evaluations; accepted: samplers with num_steps")
    counts: dict[int, int] = {}
    for steps in range(1, max(budgets) + 1):
        evaluations = run.with_settings({_NAME: sampler, _STEPS: steps}).plan.family.evaluations
        assert evaluations is not None, f"{sampler} with {steps} steps"
        if evaluations > max(budgets):
            break
        counts[steps] = evaluations
    within = [[steps for steps, count in counts.items() if count <= budget] for budget in budgets]
    return [Cell(sampler, steps, counts[steps]) for steps in sorted({max(steps) for steps in within if steps})]


def measure(run: Restored, cell: Cell, judged: Judged, real: Gaussian) -> Row:
    """The row of a cell, whose samples are of the same seed as any other's.

    One program is compiled for it; its first batch, which is drawn twice, is not timed.

    Args:
      run: the model.
      cell: how to draw from it.
      judged: who judges how many samples.
      real: features of real images.
    """
    run = run.with_settings({_NAME: cell.sampler, _STEPS: cell.num_steps})
    context = context_of(run.plan, run.functions, run.state, run.mesh)
    context.samples(context.seed, context.default_labels(judged.num)[: context.batch_size])
    start = time.perf_counter()
    images, labels = judged.draw(context)
    seconds = time.perf_counter() - start
    scalars, _ = judged.look(images, labels, real)
    accuracy = scalars["label_accuracy"] if judged.labelled else None
    return Row(cell, scalars["frechet_distance"], accuracy, seconds / judged.num)


HEAD = ("sampler", "steps", "evaluations", "Fréchet distance", "label accuracy", "ms/image")


def table_line(values: Sequence[str], labelled: bool) -> str:
    """One line of the table, without the column of accuracies unless ``labelled``."""
    return (
        "| " + " | ".join(value for name, value in zip(HEAD, values, strict=True) if labelled or name != HEAD[4]) + " |"
    )


def table_head(labelled: bool) -> str:
    """The lines above the rows."""
    return table_line(HEAD, labelled) + "\n" + table_line(["---", *["---:"] * 5], labelled)


def table_row(row: Row) -> str:
    """The line of a row."""
    accuracy = row.label_accuracy
    values = [
        row.cell.sampler,
        str(row.cell.num_steps),
        str(row.cell.evaluations),
        f"{row.frechet_distance:.4g}",
        "" if accuracy is None else f"{accuracy:.1%}",
        f"{1000 * row.seconds_per_image:.3g}",
    ]
    return table_line(values, accuracy is not None)


def page(rows: Sequence[Row], record: Mapping[str, Any]) -> str:
    """Markdown: what was measured, and the table."""
    judge = record["judge"]
    classifier = judge["classifier"]
    settings = ", ".join(f"{name}={value}" for name, value in record["settings"].items())
    more = f", {settings}" if settings else ""
    if weak := record.get("guide"):
        more += f", guided by {weak['run']} (step {weak['step']}) at {weak['scale']:g}"
    lines = [
        f"Quality against network evaluations: {judge['samples']} samples (seed {judge['seed']}) of step "
        f"{record['step']}, {record['weights']} weights, grid {record['grid']}{more}, "
        f"compared with {judge['examples']} test images in the {judge['feature_dims']} features of "
        f"{classifier['run']} ({classifier['network']}, step {classifier['step']})."
        + (f" Training images: {judge[_TRAINING]:.4g}." if _TRAINING in judge else "")
        + f" Times on {record['device']}, batches of {record['batch_size']}.",
        "",
        table_head(rows[0].label_accuracy is not None),
        *map(table_row, rows),
    ]
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row], record: Mapping[str, Any]):
    """Distance, and label accuracy where there is one, against evaluations, a line a sampler; uint8 ``[H, W, 3]``."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    panels = [("frechet_distance", "Fréchet distance")]
    panels += [("label_accuracy", "label accuracy")] if rows[0].label_accuracy is not None else []
    drawing = Figure(figsize=(5.0 * len(panels), 3.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(drawing)
    samplers = list(dict.fromkeys(row.cell.sampler for row in rows))
    for position, (name, title) in enumerate(panels, 1):
        axes = drawing.add_subplot(1, len(panels), position)
        for sampler, marker in zip(samplers, "osD^v<>Pph*X" * len(samplers), strict=False):
            own = [row for row in rows if row.cell.sampler == sampler]
            points = [row.cell.evaluations for row in own], [getattr(row, name) for row in own]
            axes.plot(*points, marker=marker, markersize=5, linewidth=1.4, label=sampler)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("network evaluations of one sample")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if name == "frechet_distance":
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
            if _TRAINING in record["judge"]:
                axes.axhline(record["judge"][_TRAINING], color="0.5", linestyle="--", label="training images")
            axes.legend(fontsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
