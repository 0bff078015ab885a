"""Trains the runs that a config's ``sweep()`` asks for.

  python -m experiments.sweep --config=configs/vae/digits_conv.py:accelerator=cpu --workdir=runs/sweep --dry_run
  python -m experiments.sweep --config=configs/vae/digits_conv.py:accelerator=cpu --workdir=runs/sweep --executor=local

Settings behind the config hold for every run. --sweep=NAME takes the file's sweep_NAME() instead. --dry_run prints the
table of runs with their states and writes nothing. The same command again trains what is missing: finished runs are
skipped, interrupted ones continue, failed ones are tried again, and runs that the config has come to ask for are added.

A sweep() may be a Search, whose runs are chosen from the results of those before and stopped early where hopeless.

Executors: local trains --jobs runs at once, each in a process of its own. population trains runs that differ only in
seeds, learning rates and the like in this process, with one program, as many at once as memory allows; --dry_run says
which group each run is in. slurm submits them as an array of jobs, with --slurm=partition=main --slurm=time=60 and the
like, and waits for them unless --nowait is given.

Exit status: 0 all runs are finished or stopped early, 1 some failed, 3 every one diverged, 130 and 143 interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.executors import EXECUTORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from experiments.executors.base import Options
    from experiments.sweep_folder import Sweep, SweepRun
    from genjax.sweep import Overrides, Search

CONFIG = config_flags.DEFINE_config_file("config", None, "File and argument, such as configs/vae/mnist_conv.py:smoke.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the runs' folders; created when missing.")
SWEEP = flags.DEFINE_string("sweep", "", "Which sweep of the config: NAME for its function sweep_NAME().")
EXECUTOR = flags.DEFINE_enum("executor", "local", sorted(EXECUTORS), "How runs are trained.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the table of runs and write nothing.")
flags.DEFINE_alias("dry-run", "dry_run")
JOBS = flags.DEFINE_integer(
    "jobs", None, "Runs at once: local 1 unless given, slurm all, or 4 of a search.", lower_bound=1
)
MEMBERS = flags.DEFINE_integer(
    "members", None, "Runs at once, of population; unless given, as fit, or 8 of a search.", lower_bound=1
)
TOGETHER = flags.DEFINE_bool("together", None, "Of population: runs as one program; unless given, on an accelerator.")
SLURM = flags.DEFINE_multi_string("slurm", [], "A setting of slurm's jobs: partition=main, time=60 (minutes), mem=8GB.")
WAIT = flags.DEFINE_bool("wait", True, "Stay until slurm's jobs have ended; --nowait leaves when they are submitted.")


def main() -> int:
    from experiments import sweeping
    from genjax.sweep import Search
    from genjax.types import UserError

    if cli.config_of(CONFIG) is None or not WORKDIR.value:
        raise UserError("--config and --workdir are required; see --help")
    flag: Any = flags.FLAGS["config"]
    sweep = sweeping.begun(WORKDIR.value, flag, EXECUTOR.value)
    space = sweeping.space_of(flag.config_filename, SWEEP.value)
    sweep = sweep.asking("search" if isinstance(space, Search) else "list", SWEEP.value)
    options = _options()
    return _search(sweep, space, options) if isinstance(space, Search) else _listed(sweep, space, options)


def _options() -> Options:
    from experiments.executors import slurm_jobs
    from experiments.executors.base import Options
    from genjax.types import UserError

    population = EXECUTOR.value == "population"
    if EXECUTOR.value != "slurm" and (SLURM.value or not WAIT.value):
        raise UserError(f"--slurm and --nowait are about --executor=slurm, not {EXECUTOR.value}")
    if population and JOBS.value is not None:
        raise UserError("--jobs is about --executor=local and slurm, not population; accepted: --members")
    if not population and (MEMBERS.value is not None or TOGETHER.value is not None):
        raise UserError(f"--members and --together are about --executor=population, not {EXECUTOR.value}")
    slurm = slurm_jobs.settings(SLURM.value) if EXECUTOR.value == "slurm" else {}
    return Options(JOBS.value, MEMBERS.value, TOGETHER.value, slurm, WAIT.value)


def _platform(runs: Iterable[SweepRun] = ()) -> bool:
    """Chooses the one of this process, and says whether the runs train in it."""
    from experiments.executors import population
    from genjax.train.sharding import select_platform

    here = EXECUTOR.value == "population" and not DRY_RUN.value  # else the devices are for the processes that train
    platform = population.platform(CONFIG.value, runs) if here else "cpu"
    select_platform(platform, CONFIG.value["accelerator"]["deterministic"])
    return here


def _listed(sweep: Sweep, space: Sequence[Overrides], options: Options) -> int:
    """Trains the runs of a list."""
    from experiments import sweeping
    from experiments.executors import population
    from experiments.executors.base import Listed
    from genjax import populations

    sweep, wanted = sweep.with_runs(space)
    here = _platform(Listed(wanted, {}).left)
    plans = sweeping.checked(CONFIG.value, wanted)
    queue = Listed(wanted, plans)
    if DRY_RUN.value:
        grouping = EXECUTOR.value == "population"
        print(sweeping.table(wanted, populations.grouped(plans) if grouping else ()))
        return 0
    if here:
        population.ready({run.name: plans[run.name] for run in queue.left})
    with sweeping.locked(sweep):
        sweeping.write(sweep)
        signal = EXECUTORS[EXECUTOR.value](sweep, queue, options)
    if not WAIT.value and not signal:  # nothing has ended yet
        print(sweeping.counts(wanted))
        return 0
    return sweeping.ending(sweep, wanted, signal)


def _search(sweep: Sweep, search: Search, options: Options) -> int:
    """Trains the runs that a search proposes."""
    import dataclasses

    from experiments import searching, sweeping
    from experiments.executors import population
    from genjax.types import UserError

    if not WAIT.value:
        raise UserError("--nowait: the sweep is a Search, which waits for results; accepted for one: --wait")
    here = _platform()
    sweep = dataclasses.replace(sweep, metric=search.metric, mode=search.mode)
    drawn, trials = searching.checked(search, CONFIG.value, sweep)
    if DRY_RUN.value:
        print(sweeping.table(sweep.runs))
        print(f"a search for {search.metric} ({search.mode}): {trials} of {search.trials} runs proposed")
        return 0
    if here:
        population.ready(drawn)
    with sweeping.locked(sweep):
        sweeping.write(sweep)
        queue = searching.Searched(sweep, search, CONFIG.value)
        signal = EXECUTORS[EXECUTOR.value](sweep, queue, options)
        queue.close()
    return sweeping.ending(queue.sweep, queue.sweep.runs, signal)


if __name__ == "__main__":
    cli.run(main, __doc__)
