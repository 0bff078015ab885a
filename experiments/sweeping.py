"""The parts of ``experiments.sweep``: from a config file to checked runs, and from their folders to a table."""

from __future__ import annotations

import contextlib
import copy
import runpy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_flags

from experiments import cli, sweep_board
from experiments.sweep_folder import STATES, Sweep, SweepRun, as_flag
from genjax import build, populations
from genjax.io.files import folder_lock
from genjax.sweep import Overrides, Search, unique
from genjax.train.plan import Experiment
from genjax.types import UserError


def begun(workdir: str, flag: Any, executor: str) -> Sweep:
    """The sweep of ``--config`` (its flag) in a folder, as it was left or new; nothing is written.

    Raises:
      UserError: as ``Sweep.begun``, or a run of it was begun with other settings than ``--config`` has now.
    """
    chosen = config_flags.get_override_values(flag)
    best = flag.value["checkpoint"]
    overrides = [as_flag(name, value) for name, value in chosen.items()]
    sweep = Sweep.begun(workdir, flag.config_filename, overrides, executor, best["best"], best["mode"])
    check_begun(flag.value, sweep.runs)
    return sweep


def check_begun(config: ConfigDict, runs: Sequence[SweepRun]) -> None:
    """Raises UserError for the first run that was begun with another config: a report would compare it with others."""
    for run in runs:
        if run.workdir.config.exists():
            try:
                run.workdir.check_begun(with_overrides(config, run.overrides), ignore=("accelerator",))
            except UserError as error:
                raise UserError(f"run {run.name}: {error}") from error


def space_of(config: str, name: str) -> list[Overrides] | Search:
    """What ``sweep()``, or ``sweep_<name>()``, of a config file asks for.

    Raises:
      UserError: there is no such function, or it returns something else.
    """
    file = config.partition(":")[0]
    functions = {key: value for key, value in runpy.run_path(file).items() if _asks(key, value)}
    wanted = f"sweep_{name}" if name else "sweep"
    if wanted not in functions:
        there = ", ".join(f"--sweep={key[6:]}" if key != "sweep" else "none" for key in functions)
        raise UserError(f"--sweep={name}: {file} has no function {wanted}(); accepted: {there or 'a file that has'}")
    space = functions[wanted]()
    if isinstance(space, Search):
        return space
    if not isinstance(space, list | tuple) or not all(isinstance(o, Mapping) for o in space) or not space:
        raise UserError(f"{file}: {wanted}() gives no list of overrides; see genjax/sweep")
    return unique(space)


def _asks(name: str, value: Any) -> bool:
    return callable(value) and name.partition("_")[0] == "sweep"


def checked(
    config: ConfigDict, runs: Sequence[SweepRun], built: populations.Builder | None = None
) -> dict[str, Experiment]:
    """The experiment of each run by name: every setting exists, fits, and is what the run's folder was begun with.

    Args:
      config: of all.
      runs: some of them.
      built: what builds them, for runs that share data with those of an earlier call.

    Raises:
      UserError: for the first of which this is not true, naming the run.
    """
    plans, built = {}, built or populations.Builder()
    for run in runs:
        try:
            plans[run.name] = built(with_overrides(config, run.overrides))
        except UserError as error:
            raise UserError(f"run {run.name}: {error}") from error
        run.workdir.check_begun(plans[run.name].config, ignore=("accelerator",))
    return plans


def with_overrides(config: ConfigDict, overrides: Overrides) -> dict[str, Any]:
    """The config with other values, by the same rules as ``--config.name=value``.

    Raises:
      UserError: a name does not exist, or a value is of another type.
    """
    changed = copy.deepcopy(config)
    for name, value in overrides.items():
        try:
            changed.update_from_flattened_dict({name: value})
        except KeyError as error:
            raise UserError(f"{name}: no such setting; the config file shows which there are") from error
        except (TypeError, ValueError) as error:
            before: Any = config
            for part in name.split("."):
                before = before[part]
            raise UserError(f"{name}={value!r}: accepted: {type(before).__name__}, such as {before!r}") from error
    return build.to_plain(changed)


@contextlib.contextmanager
def locked(sweep: Sweep) -> Iterator[None]:
    """Keeps a second sweep out of the folder, which is made where it is missing."""
    try:
        sweep.path.mkdir(parents=True, exist_ok=True)
        with folder_lock(sweep.path, exclusive=True) as held:
            if not held:
                raise UserError(f"--workdir {sweep.path} is in use by another sweep")
            yield
    except OSError as error:
        raise UserError(f"--workdir {sweep.path} cannot be used: {error.strerror or error}") from error


def write(sweep: Sweep) -> None:
    """Writes down which runs there are, for the next command and for TensorBoard."""
    sweep.write()
    sweep_board.update(sweep)


def table(runs: Sequence[SweepRun], groups: Sequence[Mapping[str, Experiment]] = ()) -> str:
    """A line for each run, one for each group of runs that train as one program, and how many are in each state."""
    width = max((len(run.name) for run in runs), default=0)
    member = {name: f"group {number}  " for number, group in enumerate(groups, 1) for name in group}
    lines = [
        f"{run.name:<{width}}  {run.state:<8}  {member[run.name] if member else ''}{run.reason}".rstrip()
        for run in runs
    ]
    described = [f"group {number}: {populations.described(group)}" for number, group in enumerate(groups, 1)]
    return "\n".join([*lines, *described, counts(runs)])


def counts(runs: Sequence[SweepRun]) -> str:
    found = Counter(run.state for run in runs)
    return f"{len(runs)} runs: {', '.join(f'{found[state]} {state}' for state in STATES if found[state])}"


def ending(sweep: Sweep, runs: Sequence[SweepRun], signal: int) -> int:
    """Says how the runs stand and where to read them, and gives the exit status."""
    print(f"{counts(runs)}\nTensorBoard: tensorboard --logdir={sweep_board.update(sweep)}", flush=True)
    print(f"report:      python -m experiments.report {sweep.path}", flush=True)
    states = {run.name: run.state for run in runs}
    for run in runs:
        if states[run.name] in ("failed", "diverged"):
            print(f"{states[run.name]}: {run.name}: {run.reason}", flush=True)
    if signal:
        return 128 + signal
    failed = sum(state == "failed" for state in states.values())
    if failed:
        return cli.fail(f"{failed} of {len(runs)} runs failed; the same command tries them again", 1)
    if all(state == "diverged" for state in states.values()):
        return cli.fail("every run diverged", cli.DIVERGED)
    return 0
