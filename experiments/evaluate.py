"""Evaluates a run from its work folder alone and writes evaluation.json there.

  python -m experiments.evaluate --workdir=runs/vae

Every evaluator of the stored config runs on the test split. --judge names the work folder of a classifier, which then
says what classes the samples show and how far their features are from those of the test split. --protocol compares
samples with the test split by the feature network, counts and seeds that its name stands for. --set gives a setting
that acts on sampling alone another value: --set=model.sampler.num_steps=4. --ema=0.08 uses the average of the
weights that has this relative length, where checkpoints were kept (checkpoint.keep). --guide=runs/small moves the
samples of a diffusion model away from those of a weaker one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Work folder of the run.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which checkpoint: latest, best or a step.")
EMA = flags.DEFINE_float("ema", None, "Relative length of the average of the weights, rebuilt from kept checkpoints.")
GUIDE = flags.DEFINE_string("guide", None, "Work folder of a weaker diffusion model to move samples away from.")
GUIDE_CHECKPOINT = flags.DEFINE_string("guide_checkpoint", "latest", "Which checkpoint of it: latest, best or a step.")
GUIDE_SCALE = flags.DEFINE_float("guide_scale", None, "How far: 1 not at all, 2 unless given.")
ACCELERATOR = flags.DEFINE_string("accelerator", "auto", "Where to compute: cpu, gpu, tpu or auto.")
JUDGE = flags.DEFINE_string("judge", None, "Work folder of a classifier for the samples.")
NUM = flags.DEFINE_integer("num", 1000, "Samples the judge looks at.", lower_bound=1)
PROTOCOL = flags.DEFINE_string("protocol", None, "Protocol for samples as a set, such as fashion_mnist_10k.")
LIMIT = flags.DEFINE_integer("limit", 0, "Test examples to look at, 0 for all.", lower_bound=0)
SET = flags.DEFINE_multi_string("set", [], "A setting of sampling and its value, as model.sampler.num_steps=4.")


def facts_of_training(path: Path) -> dict[str, Any]:
    """What an evaluation.json says of the training and no evaluation can find out again; nothing where there is none.

    Raises:
      UserError: it is damaged.
    """
    from genjax.io.files import read_record

    if not path.exists():
        return {}
    record = read_record(path)
    return {key: record[key] for key in ("finished", "rollbacks", "evaluation_seconds") if key in record}


def main() -> int:
    import dataclasses

    from experiments.restore import guide_of, restore
    from genjax.evaluators import Distribution
    from genjax.io.images import save_png
    from genjax.io.workdir import write_json
    from genjax.train.evaluation import context_of, evaluate
    from genjax.train.member import evaluation_record
    from genjax.train.plan import Scheduled
    from genjax.train.progress import numbers
    from genjax.types import UserError

    if not WORKDIR.value:
        raise UserError("--workdir is required; see --help")
    settings = cli.settings_of(SET.value)
    run = restore(WORKDIR.value, CHECKPOINT.value, ACCELERATOR.value, settings, EMA.value)
    weaker = guide_of(GUIDE.value, GUIDE_CHECKPOINT.value, GUIDE_SCALE.value, ACCELERATOR.value)
    run = run.guided_by(*weaker) if weaker else run
    facts_of_training(run.workdir.evaluation)  # rather refused now than after the work
    evaluators = list(run.plan.evaluators)
    if JUDGE.value:
        from experiments.judge import judge

        evaluators.append(Scheduled("judge", judge(JUDGE.value, ACCELERATOR.value, run.plan, NUM.value), None))
    if PROTOCOL.value:
        evaluators.append(Scheduled("distribution", Distribution(PROTOCOL.value), None))
    context = context_of(run.plan, run.functions, run.state, run.mesh, rebuilt=run.ema)
    report, protocols = evaluate(dataclasses.replace(context, limit=LIMIT.value), evaluators)
    record = evaluation_record(run.plan, run.state, CHECKPOINT.value, protocols, run.ema)
    record["training_seconds"] = round(run.seconds, 1)
    if settings:
        record["settings"] = settings
    if run.guide:
        record["guide"] = run.guide.facts()
    write_json(run.workdir.evaluation, record | facts_of_training(run.workdir.evaluation))
    for name, image in report.images.items():
        save_png(run.workdir.images / f"{name}.png", image)
    print(f"step {record['step']} of {WORKDIR.value} ({record['weights']} weights)")
    for name, protocol in protocols.items():
        print(f"{name}: {numbers(protocol['scalars'])}")
    print(f"written to {run.workdir.evaluation}")
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
