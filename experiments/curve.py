"""Quality against network evaluations: several samplers on one checkpoint, before one judge.

  python -m experiments.curve --workdir=runs/flow --judge=runs/cnn --samplers=euler,heun --evaluations=2,4,8,16

For each sampler and each number of evaluations it takes the most steps that do not exceed it (a step of heun takes two,
guidance doubles them), draws the same --num latents, and asks the classifier of --judge how far their features are from
those of the test split, and how many are of the class asked for. Writes curve.json, curve.md and curve.png to
<workdir>/curve; experiments.report takes them from there.
"""

from __future__ import annotations

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Work folder of the run, of family diffusion.")
JUDGE = flags.DEFINE_string("judge", None, "Work folder of a classifier of the same images.")
SAMPLERS = flags.DEFINE_list("samplers", ["ddim", "euler", "heun", "dpmpp_2m", "unipc"], "Samplers, a line each.")
EVALUATIONS = flags.DEFINE_list("evaluations", [str(2**i) for i in range(7)], "At most so many of them, a point each.")
NUM = flags.DEFINE_integer("num", 2000, "Samples the judge looks at.", lower_bound=1)
GRID = flags.DEFINE_string("grid", None, "Grid of noise levels for all of them, the run's own unless given.")
SET = flags.DEFINE_multi_string("set", [], "A setting of sampling and its value, as model.guidance_scale=2.")
EMA = flags.DEFINE_float("ema", None, "Relative length of the average of the weights, rebuilt from kept checkpoints.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which checkpoint: latest, best or a step.")
GUIDE = flags.DEFINE_string("guide", None, "Work folder of a weaker diffusion model to move samples away from.")
GUIDE_CHECKPOINT = flags.DEFINE_string("guide_checkpoint", "latest", "Which checkpoint of it: latest, best or a step.")
GUIDE_SCALE = flags.DEFINE_float("guide_scale", None, "How far: 1 not at all, 2 unless given.")
ACCELERATOR = flags.DEFINE_string("accelerator", "auto", "Where to compute: cpu, gpu, tpu or auto.")


def budgets_of(given: list[str]) -> list[int]:
    """The numbers of evaluations, ascending; raises UserError for what is no positive whole number."""
    from genjax.types import UserError

    if not given or not all(text.strip().isdecimal() and int(text) > 0 for text in given):
        raise UserError(f"--evaluations={','.join(given)}: accepted: whole numbers from 1, such as 1,2,4,8")
    return sorted({int(text) for text in given})


def main() -> int:
    from experiments import tradeoff
    from experiments.judge import judge
    from experiments.restore import guide_of, restore
    from genjax.io.files import write_atomic, write_json
    from genjax.io.images import save_png
    from genjax.train.evaluation import context_of
    from genjax.train.member import evaluation_record
    from genjax.types import UserError

    if not WORKDIR.value or not JUDGE.value:
        raise UserError("--workdir and --judge are required; see --help")
    budgets = budgets_of(EVALUATIONS.value)
    settings = cli.settings_of([*SET.value, *([f"model.grid.name={GRID.value}"] if GRID.value else [])])
    for name in settings:
        if name.startswith("model.sampler"):
            raise UserError(f"--set={name}: --samplers and --evaluations decide about it; leave the flag out")
    run = restore(WORKDIR.value, CHECKPOINT.value, ACCELERATOR.value, ema=EMA.value)
    if "sampler" not in run.plan.config["model"]:
        raise UserError(f"--workdir {WORKDIR.value} is a {run.plan.family.name}; accepted: a run of family diffusion")
    run = run.with_settings(settings)
    weaker = guide_of(GUIDE.value, GUIDE_CHECKPOINT.value, GUIDE_SCALE.value, ACCELERATOR.value)
    run = run.guided_by(*weaker) if weaker else run
    samplers = list(dict.fromkeys(name.strip() for name in SAMPLERS.value))
    chosen = [cell for sampler in samplers for cell in tradeoff.cells(run, sampler, budgets)]
    if not chosen:
        raise UserError(f"--evaluations={budgets[-1]} is less than one step of any of --samplers; accepted: more")
    judged = judge(JUDGE.value, ACCELERATOR.value, run.plan, NUM.value)
    context = context_of(run.plan, run.functions, run.state, run.mesh)
    real = judged.judge.real(context)
    rows = []
    print(tradeoff.table_head(judged.labelled))
    for cell in chosen:
        rows.append(tradeoff.measure(run, cell, judged, real))
        print(tradeoff.table_row(rows[-1]), flush=True)
    device = run.mesh.devices.flat[0]
    about = evaluation_record(run.plan, run.state, CHECKPOINT.value, {}, run.ema)
    record = {
        **{name: value for name, value in about.items() if name not in ("evaluators", "evaluations_per_sample")},
        "settings": settings,
        **({"guide": run.guide.facts()} if run.guide else {}),
        "grid": run.plan.config["model"]["grid"]["name"],
        "device": f"{device.platform} ({device.device_kind})",
        "batch_size": min(run.plan.config["eval_batch_size"], NUM.value),
        "judge": judged.facts(context, real),
        "cells": [row.record() for row in rows],
    }
    folder = run.workdir.path / "curve"
    write_json(folder / "curve.json", record)
    write_atomic(folder / "curve.md", tradeoff.page(rows, record).encode())
    save_png(folder / "curve.png", tradeoff.figure(rows, record))
    print(f"written to {folder}")
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
