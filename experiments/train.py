"""Trains what a config names, into a work folder.

  python -m experiments.train --config=configs/vae/mnist_conv.py:accelerator=cpu --workdir=runs/vae

Any setting can be changed behind the config: --config.optim.learning_rate=3e-4 --config.total='3 epochs'. The argument
behind the colon takes accelerator=cpu|gpu|tpu|auto, and smoke for a run of seconds. The same command again continues
where the run stopped; Ctrl-C saves first.

--population=8 trains the seeds seed, seed+1, ... together, and --vary=optim.learning_rate=1e-4,3e-4,1e-3 a member for
each value; several of them make a grid. Every member has its own work folder inside --workdir.

Several processes train one run where each is started with the same command and --coordinator=HOST:PORT,
--num_processes=N, --process_id=0 to N-1; under Slurm's srun, and on a slice of TPUs, they find each other.
"""

from __future__ import annotations

import time
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "File and argument, such as configs/vae/mnist_conv.py:smoke.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and pictures; created when missing.")
POPULATION = flags.DEFINE_integer("population", None, "Members that differ in the seed.", lower_bound=1)
VARY = flags.DEFINE_multi_string("vary", [], "A setting and its values: seed, a learning rate, or model.beta of a VAE.")
TOGETHER = flags.DEFINE_bool("together", None, "Members as one program; unless given, on an accelerator only.")

COORDINATOR = flags.DEFINE_string("coordinator", None, "Several processes: host and port where the first one waits.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", lower_bound=0)

STARTED = time.monotonic()


def main() -> int:
    from jax import process_count
    from jax.errors import JaxRuntimeError

    from genjax import build
    from genjax.io.files import reason
    from genjax.io.leader import is_leader, led, same_settings
    from genjax.io.workdir import Workdir
    from genjax.train.compilation import use_cache
    from genjax.train.distributed import connect
    from genjax.train.evaluation import check
    from genjax.train.loop import DivergedError, train
    from genjax.train.sharding import mesh_of, select_platform
    from genjax.types import UserError

    given = cli.config_of(CONFIG)
    if given is None or not WORKDIR.value:
        raise UserError("--config and --workdir are required; see --help")
    config = build.to_plain(given)
    connect(config["accelerator"]["platform"], COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    platform = select_platform(config["accelerator"]["platform"], config["accelerator"].get("deterministic", False))
    same_settings({**config, "population": POPULATION.value, "vary": VARY.value, "together": TOGETHER.value})
    use_cache()
    folder = WORKDIR.value.rstrip("/")
    if POPULATION.value or VARY.value:
        return _train_population(config, folder, platform)
    if TOGETHER.value is not None:
        raise UserError("--together is about the members of a population: give --population or --vary")
    plan = build.experiment(config)
    mesh = mesh_of(config["accelerator"])
    check(plan, mesh)
    begin = lambda: Workdir.open_for_training(folder, plan.config, ignore=("accelerator",))  # noqa: E731
    with led(begin, lambda: Workdir(folder, writes=False)) as workdir:
        if workdir.writes:
            workdir.write_environment()
        try:
            interrupt = train(plan, workdir, mesh, STARTED)
        except DivergedError as error:
            return cli.fail(str(error), cli.DIVERGED)
        except JaxRuntimeError as error:
            if process_count() == 1:
                raise
            cli.leave(f"another process of this run was lost ({reason(error)}); the same command continues", cli.LOST)
    if is_leader():
        print(f"pictures:    {folder}/images\nTensorBoard: tensorboard --logdir={folder}/tensorboard")
        print(f"checkpoints: {folder}/checkpoints\nresults:     {folder}/evaluation.json, {folder}/metrics.jsonl")
    return 128 + interrupt.signal if interrupt.signal else 0


def _train_population(config: dict[str, Any], folder: str, platform: str) -> int:
    from genjax import populations
    from genjax.io.leader import is_leader, led
    from genjax.io.workdir import Workdir, describe_environment, open_population
    from genjax.train.evaluation import check
    from genjax.train.loop import train_population
    from genjax.train.sharding import mesh_of

    values = cli.varied(VARY.value, POPULATION.value, config["seed"])
    plans = populations.varied(config, values)
    mesh = mesh_of(config["accelerator"])
    check(next(iter(plans.values())), mesh)  # members differ in numbers only
    together = platform != "cpu" if TOGETHER.value is None else TOGETHER.value
    configs = {name: plan.config for name, plan in plans.items()}
    workdirs = led(
        lambda: open_population(folder, configs, ignore=("accelerator",)),
        lambda: [Workdir(f"{folder}/{name}", writes=False) for name in configs],
    )
    try:
        environment = describe_environment()
        for workdir in workdirs:
            if workdir.writes:
                workdir.write_environment(environment)
        outcome = train_population(plans, workdirs, mesh, together, started=STARTED)
    finally:
        for workdir in workdirs:
            workdir.close()
    if is_leader():
        print(f"members:     {folder}/{{{','.join(list(plans)[:2])}{',...' if len(plans) > 2 else ''}}}")
        print(f"TensorBoard: tensorboard --logdir={folder}")
        for name, line in outcome.diverged.items():
            print(f"diverged:    {name}: {line}")
    if outcome.interrupt.signal:
        return 128 + outcome.interrupt.signal
    if len(outcome.diverged) == len(plans):
        return cli.fail("every member diverged", cli.DIVERGED)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
