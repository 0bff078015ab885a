"""Trains what a config names, into a work folder.

  python -m experiments.train --config=configs/vae/mnist_conv.py:accelerator=cpu --workdir=runs/vae

Any setting can be changed behind the config: --config.optim.learning_rate=3e-4 --config.total='3 epochs'. The argument
behind the colon takes accelerator=cpu|gpu|tpu|auto, and smoke for a run of seconds. The same command again continues
where the run stopped; Ctrl-C saves first.
"""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from experiments import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "File and argument, such as configs/vae/mnist_conv.py:smoke.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and pictures; created when missing.")


def main() -> int:
    from genjax import build
    from genjax.io.workdir import Workdir
    from genjax.train.loop import DivergedError, train
    from genjax.train.sharding import data_mesh, select_platform
    from genjax.types import UserError

    given = cli.config_of(CONFIG)
    if given is None or not WORKDIR.value:
        raise UserError("--config and --workdir are required; see --help")
    config = build.to_plain(given)
    select_platform(config["accelerator"]["platform"])
    plan = build.experiment(config)
    mesh = data_mesh(config["accelerator"]["devices"])
    with Workdir.open_for_training(WORKDIR.value, plan.config, ignore=("accelerator",)) as workdir:
        workdir.write_environment()
        try:
            interrupt = train(plan, workdir, mesh)
        except DivergedError as error:
            return cli.fail(str(error), cli.DIVERGED)
    folder = WORKDIR.value.rstrip("/")
    print(f"pictures:    {folder}/images\nTensorBoard: tensorboard --logdir={folder}/tensorboard")
    print(f"checkpoints: {folder}/checkpoints\nresults:     {folder}/evaluation.json, {folder}/metrics.jsonl")
    return 128 + interrupt.signal if interrupt.signal else 0


if __name__ == "__main__":
    cli.run(main, __doc__)
