"""Trains runs that differ in numbers of the state only as populations, in this process: one program for each group.

Of a search it takes some runs at a time, and more when all of these have ended.
"""

from __future__ import annotations

import gc
import itertools
import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from experiments import cli
from experiments.executors.base import Options, Queue, cleared, failed, stopped, taken
from experiments.sweep_folder import ENDED, Sweep, SweepRun
from genjax.types import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from genjax.io.workdir import Workdir
    from genjax.train.interrupt import Interrupt
    from genjax.train.plan import Experiment

    Group = Mapping[str, Experiment]  # by name of the run

_PLATFORM = "accelerator.platform"
_SHOWN = 300  # characters of a reason
_BATCH = 8  # runs that a search proposes at a time, unless the command line says how many


def platform(config: Mapping[str, Any], runs: Iterable[SweepRun] = ()) -> str:
    """The one that all runs of a config are for.

    Raises:
      UserError: they are for several, and a process has one.
    """
    found = sorted({str(run.overrides.get(_PLATFORM, config["accelerator"]["platform"])) for run in runs}) or ["cpu"]
    if len(found) > 1:
        raise UserError(f"{_PLATFORM} varies, {', '.join(found)}; accepted for --executor=population: one")
    return found[0]


def ready(plans: Group) -> None:
    """Checks each group on the devices, before anything is written.

    Raises:
      UserError: too few devices, several processes, or an evaluator that can't judge.
    """
    import jax

    from genjax import populations
    from genjax.train.compilation import use_cache
    from genjax.train.evaluation import check
    from genjax.train.sharding import mesh_of

    if jax.process_count() > 1:
        raise UserError(f"--executor=population is one process, here are {jax.process_count()}; train runs alone")
    use_cache()
    for group in populations.grouped(plans):
        name, plan = next(iter(group.items()))  # members differ in numbers only
        try:
            check(plan, mesh_of(plan.config["accelerator"]))
        except UserError as error:
            raise UserError(f"run {name}: {error}") from error
        except Exception as error:
            print(f"run {name}: {_reason(error)}", flush=True)  # a bug: its training fails, and the others' does not


def train(sweep: Sweep, queue: Queue, options: Options) -> int:
    """An ``Executor`` of runs that are ``ready``."""
    from genjax import populations
    from genjax.train.interrupt import Interrupt

    most = (options.members or _BATCH) if queue.adaptive else None
    with Interrupt() as interrupt:
        training = _Training(queue, options, interrupt)
        while interrupt.signal is None and (runs := taken(queue, most)):
            groups = populations.grouped({run.name: queue.plan(run) for run in runs})
            training.runs |= {run.name: run for run in runs}
            for number, group in enumerate(groups, 1):
                if interrupt.signal is None:
                    print(f"group {number} of {len(groups)}: {populations.described(group)}", flush=True)
                    training.group(group)
    return interrupt.signal or 0


def split(group: Group, parts: int) -> list[Group]:
    """The group in ``parts`` of equal size, or of sizes that differ by 1, which are few programs."""
    names = list(group)
    bounds = [len(names) * i // parts for i in range(parts + 1)]
    return [{name: group[name] for name in names[a:b]} for a, b in itertools.pairwise(bounds)]


class _Training:
    """What trains group after group.

    Attributes:
      runs: that were taken, by name.
    """

    def __init__(self, queue: Queue, options: Options, interrupt: Interrupt):
        from genjax.io.workdir import describe_environment

        self.runs: dict[str, SweepRun] = {}
        self._queue, self._options, self._interrupt = queue, options, interrupt
        self._environment = describe_environment()
        self._done: set[str] = set()  # runs that this process is through with

    def group(self, group: Group) -> None:
        """Trains as many members at once as fit.

        Where that fails, the halves are tried, down to the run at fault: so the others end, and what was too much for
        memory becomes less.
        """
        waiting = self._chunks(group)
        while waiting and self._interrupt.signal is None:
            chunk = waiting.pop(0)
            gc.collect()  # the loop of the chunk before, whose arrays lie on the device
            reason, status = self._tried(chunk)
            ended = [name for name in chunk if not reason or self.runs[name].state in ENDED]
            self._end(ended)
            left = {name: chunk[name] for name in chunk if name not in self._done}
            if self._interrupt.signal is not None or not left:
                continue
            if len(chunk) == 1:
                self._fail(next(iter(left)), reason, status)
            else:
                print(f"{len(chunk)} runs: {reason}; goes on in smaller parts", flush=True)
                waiting[:0] = split(left, min(len(left), 2))

    def _chunks(self, group: Group) -> list[Group]:
        from genjax.train.capacity import most_members, most_open

        if (most := self._options.members) is None and len(group) > 1:
            try:
                most = most_members(next(iter(group.values())), *self._way(group))
            except Exception as error:  # and so will the training, which says of which run
                print(f"cannot tell how much memory a member needs: {_reason(error)}", flush=True)
        return split(group, -(-len(group) // min(most or len(group), most_open())))

    def _way(self, group: Group) -> tuple[Mesh, bool]:
        """The devices, and whether the members are one program there."""
        from genjax.train.sharding import mesh_of

        mesh = mesh_of(next(iter(group.values())).config["accelerator"])
        together = self._options.together
        if together is None:
            together = mesh.devices.flat[0].platform != "cpu"
        return mesh, together and len(group) > 1

    def _tried(self, chunk: Group) -> tuple[str, int]:
        """Trains a population to its end or to an interruption; why it failed otherwise, with an exit status."""
        from genjax.train.loop import train_population

        opened: dict[str, Workdir] = {}
        try:
            self._open(chunk, opened)
            if members := {name: chunk[name] for name in opened}:
                train_population(members, list(opened.values()), *self._way(members), self._hopeless, self._interrupt)
            return "", 0
        except UserError as error:
            return _reason(error), cli.USAGE
        except Exception as error:
            if len(chunk) == 1:
                traceback.print_exc()
            return _reason(error), 1
        finally:
            for workdir in opened.values():
                workdir.close()

    def _hopeless(self, name: str) -> str:
        """Notes that a run is not worth going on with, and gives the reason; empty where it is worth it."""
        if (verdict := self._queue.verdict(self.runs[name])) is None:
            return ""
        stopped(self.runs[name], verdict)
        return verdict.reason

    def _open(self, chunk: Group, opened: dict[str, Workdir]) -> None:
        from genjax.io.workdir import Workdir

        for name, plan in chunk.items():
            try:
                opened[name] = Workdir.open_for_training(self.runs[name].path, plan.config, ignore=("accelerator",))
            except UserError as error:
                self._fail(name, _reason(error), cli.USAGE)
            else:
                opened[name].write_environment(self._environment)

    def _fail(self, name: str, reason: str, status: int) -> None:
        failed(self.runs[name], reason, status)
        print(f"{name}: failed: {reason}", flush=True)
        self._end([name])

    def _end(self, names: Iterable[str]) -> None:
        for name in names:
            run = self.runs[name]
            if name not in self._done:
                self._done.add(name)
                if run.state in ENDED:
                    cleared(run)
                self._queue.ended(run)


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_SHOWN]
