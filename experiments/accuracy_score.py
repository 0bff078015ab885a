"""Classification accuracy score: trains a classifier on a run's samples and tests it on real images.

  python -m experiments.accuracy_score --workdir=runs/gan --config=configs/classifier/digits_cnn.py:accelerator=cpu

Draws --num labelled samples of a class-conditional run (as many as its training split has, unless given), their classes
as frequent as in that split, trains the classifier of --config on them alone, for as many steps as it would take with
the real images, and tests it on the test split (Ravuri & Vinyals 2019). --real trains it on the real training split,
too: what the score is to be compared with. Any setting of the classifier can be changed behind its config. --set gives
a setting that acts on sampling alone another value. Writes accuracy_score.json into the run's work folder.
"""

from __future__ import annotations

from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Work folder of a class-conditional run.")
CONFIG = config_flags.DEFINE_config_file("config", None, "Of the classifier, such as configs/classifier/digits_cnn.py.")
NUM = flags.DEFINE_integer("num", None, "Samples, as many as the run's training split has unless given.", lower_bound=1)
REAL = flags.DEFINE_bool("real", False, "Train the classifier on the real training split, too.")
SEED = flags.DEFINE_integer("seed", 0, "Of the samples; the classifier's is --config.seed.", lower_bound=0)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which checkpoint of the run: latest, best or a step.")
EMA = flags.DEFINE_float("ema", None, "Relative length of the average of the weights, rebuilt from kept checkpoints.")
SET = flags.DEFINE_multi_string("set", [], "A setting of sampling and its value, as model.sampler.num_steps=4.")


def main() -> int:
    from experiments.restore import restore
    from genjax import build
    from genjax.io.files import write_json
    from genjax.train.loop import DivergedError
    from genjax.train.member import evaluation_record
    from genjax.types import UserError

    given = cli.config_of(CONFIG)
    if given is None or not WORKDIR.value:
        raise UserError("--workdir and --config are required; see --help")
    config, settings = build.to_plain(given), cli.settings_of(SET.value)
    run = restore(WORKDIR.value, CHECKPOINT.value, config["accelerator"]["platform"], settings, EMA.value)
    check_run(run.plan, WORKDIR.value)
    check_classifier(config, run.plan.config)
    plan = build.experiment(config)
    count = len(run.plan.train) if NUM.value is None else NUM.value
    labels = labels_like(run.plan.train, count)
    print(f"drawing {count} samples of {WORKDIR.value}", flush=True)
    drawn = samples(run, labels, SEED.value)
    record = evaluation_record(run.plan, run.state, CHECKPOINT.value, {}, run.ema)
    del record["evaluators"]
    record |= {"settings": settings, "samples": count, "seed": SEED.value}
    record["classifier"] = {name: plan.config[name] for name in ("model", "optim", "total", "batch_size", "seed")}
    record["classifier"] |= {"steps": plan.total_steps, "data": plan.config["data"]}
    sources = {"samples": drawn, **({"real": plan.train} if REAL.value else {})}
    for name, source in sources.items():
        print(f"training the classifier on {len(source)} images: {name}", flush=True)
        try:
            signal, record[name if name == "real" else "score"] = trained_on(plan, source)
        except DivergedError as error:
            return cli.fail(f"the classifier on {name}: {error}", cli.DIVERGED)
        if signal is not None:
            return 128 + signal
    path = run.workdir.path / "accuracy_score.json"
    write_json(path, record)
    for name in ("score", "real"):
        if name in record:
            low, high = record[name]["interval_95"]
            value = record[name]["scalars"]["accuracy_score"]
            print(f"{'accuracy_score' if name == 'score' else 'real images'} {value:.4f} ({low:.4f} to {high:.4f})")
    print(f"written to {path}")
    return 0


def check_run(plan: Any, path: str) -> None:
    """Raises UserError unless the run draws images of a class that is asked for."""
    from genjax.types import UserError

    if plan.family.sample is None:
        raise UserError(f"--workdir {path} is a {plan.family.name}, which can't sample; accepted: a conditional run")
    if not plan.family.conditional:
        raise UserError(f"--workdir {path} was trained without labels; accepted: a run with model.conditional=True")


def check_classifier(config: dict[str, Any], trained: dict[str, Any]) -> None:
    """Raises UserError unless the config is of a classifier on the data that the run was trained on."""
    from genjax.types import UserError

    if config["model"]["family"] != "classifier":
        raise UserError(f"--config is of a {config['model']['family']}; accepted: one in configs/classifier")
    own, other = (
        {name: data[name] for name in data if name != "augment"} for data in (config["data"], trained["data"])
    )
    for name in own:
        if own[name] != other[name]:
            raise UserError(f"--config.data.{name} is {own[name]!r}; accepted: {other[name]!r}, that of the run's data")


def labels_like(source: Any, count: int) -> Any:
    """int32 ``[count]``, sorted, each class as frequent as in the split up to one label.

    Raises:
      UserError: too few for one of every class.
    """
    import numpy as np

    from genjax.types import UserError

    size, chunk = len(source), 1024
    parts = [source.gather(np.arange(start, min(start + chunk, size)))["label"] for start in range(0, size, chunk)]
    there = np.sort(np.concatenate(parts))
    labels = there[((np.arange(count) + 0.5) * size / count).astype(np.int64)]
    missing = np.setdiff1d(there, labels)
    if len(missing):
        raise UserError(
            f"--num={count} leaves {len(missing)} of {len(np.unique(there))} classes without a sample; accepted: more"
        )
    return labels.astype(np.int32)


def samples(run: Any, labels: Any, seed: int) -> Any:
    """A source of the run's samples of these labels."""
    from genjax.data.base import ArraySource
    from genjax.evaluators.base import to_uint8
    from genjax.train.evaluation import context_of

    context = context_of(run.plan, run.functions, run.state, run.mesh)
    facts = {"source": "samples", "run": run.workdir.path.name, "count": len(labels), "seed": seed}
    return ArraySource(context.spec, "samples", facts, to_uint8(context.samples(seed, labels)), labels)


def trained_on(plan: Any, source: Any) -> tuple[int | None, dict[str, Any]]:
    """Trains the classifier on other images than its config's and gives the evaluator's record.

    Its work folder is a temporary one: only the numbers are kept.

    Returns:
      The signal that interrupted it, None where nothing did, and the record.
    """
    import dataclasses
    import tempfile

    from genjax.evaluators import AccuracyScore
    from genjax.io.files import read_json
    from genjax.io.workdir import Workdir
    from genjax.train.loop import train
    from genjax.train.plan import Scheduled
    from genjax.train.sharding import mesh_of

    evaluators = (Scheduled("accuracy_score", AccuracyScore(), None),)
    plan = dataclasses.replace(plan, train=source, evaluators=evaluators)
    mesh = mesh_of(plan.config["accelerator"])
    with tempfile.TemporaryDirectory() as folder, Workdir.open_for_training(folder, plan.config) as workdir:
        interrupt = train(plan, workdir, mesh)
        if interrupt.signal is not None:
            return int(interrupt.signal), {}
        return None, read_json(workdir.evaluation)["evaluators"]["accuracy_score"]


if __name__ == "__main__":
    cli.run(main, __doc__)
