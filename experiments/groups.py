"""Finished runs grouped by what they trained: one config but for the seed is one group, whose figures are means."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.references import Published, checked, config_file
from genjax.evaluators.verdict import mean_interval, mismatch
from genjax.io.files import read_json
from genjax.types import UserError

_NORMAL = 1.959963984540054  # the 97.5 % point of the normal distribution
REFERENCES = "references.json"


def measured(evaluation: Mapping[str, Any]) -> str:
    """What was evaluated and how samples were drawn, in words; numbers of other words are not averaged."""
    words = {
        "step": "step {:,}",
        "weights": "{} weights",
        "checkpoint": "{} checkpoint",
        "evaluations_per_sample": "{} network evaluations a sample",
    }
    found = [form.format(evaluation[key]) for key, form in words.items() if key in evaluation]
    if "settings" in evaluation:
        found += [f"{name}={value}" for name, value in evaluation["settings"].items()]
    if "guide" in evaluation:
        weak = evaluation["guide"]
        found.append(f"guided by {weak['run']} (step {weak['step']}) at {weak['scale']:g}")
    return ", ".join(found)


@dataclasses.dataclass(frozen=True)
class Run:
    """A collected run.

    Attributes:
      path: of its folder in the collection.
      config, evaluation, environment: its JSON files.
      references: the published figures that its config declares.
    """

    path: Path
    config: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    environment: Mapping[str, Any]
    references: tuple[Published, ...]

    name = property(lambda self: self.path.name)
    seed = property(lambda self: self.config["seed"])
    seconds = property(lambda self: self.evaluation["training_seconds"])

    @property
    def data(self) -> str:
        options = self.config["data"]["options"]
        return options["name"] if "name" in options else self.config["data"]["source"]

    @property
    def examples_seen(self) -> int:
        """Training examples that the steps consumed, each as often as it was seen."""
        if "examples_seen" in self.evaluation:
            return self.evaluation["examples_seen"]
        model = self.config["model"]  # of a record from before it was written there
        updates = model["discriminator_updates"] if "discriminator_updates" in model else 1
        return self.evaluation["step"] * self.config["batch_size"] * updates

    @property
    def device(self) -> str:
        environment = self.environment
        return f"{environment['backend']} ({environment['device_kind']} x {environment['device_count']})"

    @property
    def commit(self) -> str:
        git = self.environment["git"]
        return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else ""

    @property
    def versions(self) -> str:
        packages = self.environment["packages"]
        return f"jax {packages['jax']}, flax {packages['flax']}, Python {self.environment['python']}"

    @property
    def command(self) -> str:
        """The command line that started the run, quoted for a shell."""
        return f"python -m experiments.train {shlex.join(self.environment['argv'][1:])}"

    measured = property(lambda self: measured(self.evaluation))


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of a group under one protocol.

    Attributes:
      evaluator, metric: its names in evaluation.json.
      runs: that have it, in the order of their seeds.
      values: of each of them.
      low, high: 95 % interval of the mean, None where none is known: Student's over seeds where there are several,
        else the run's own, which speaks of other examples or samples and not of other seeds.
      protocol: what it was measured by, in words.
      named: the protocol's name, empty where it has none.
      reference: the published figure, None where the config declares none.
    """

    evaluator: str
    metric: str
    runs: tuple[Run, ...]
    values: tuple[float, ...]
    low: float | None
    high: float | None
    protocol: str
    named: str
    reference: Published | None

    name = property(lambda self: f"{self.evaluator}/{self.metric}")
    seeds = property(lambda self: tuple(run.seed for run in self.runs))

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config that differ in their seeds, in the order of these."""

    name: str
    runs: tuple[Run, ...]

    @functools.cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Every number of every evaluator, a figure for each protocol it was measured by."""
        names = dict.fromkeys(
            (evaluator, metric)
            for run in self.runs
            for evaluator, record in run.evaluation["evaluators"].items()
            for metric in record["scalars"]
        )
        return tuple(figure for name in names for figure in self._figures(*name))

    @property
    def missed(self) -> tuple[Figure, ...]:
        return tuple(f for f in self.figures if f.reference is not None and not f.reference.reached(f.mean))

    def _figures(self, evaluator: str, metric: str) -> list[Figure]:
        parts: list[list[Run]] = []
        for run in self.runs:
            record = _record(run, evaluator)
            if metric in record.get("scalars", {}):
                fitting = (part for part in parts if _same_protocol(part[0], run, evaluator))
                part = next(fitting, None)
                if part is None:
                    parts.append([run])
                else:
                    part.append(run)
        words = {run.measured for run in self.runs}
        return [self._figure(evaluator, metric, part, len(words) > 1) for part in parts]

    def _figure(self, evaluator: str, metric: str, runs: Sequence[Run], several: bool) -> Figure:
        records = [_record(run, evaluator) for run in runs]
        values = tuple(float(record["scalars"][metric]) for record in records)
        low, high = mean_interval(values) if len(values) > 1 else own_interval(records[0], metric)
        named = records[0].get("protocol", "")
        protocol = protocol_words(records[0]) + (f", {runs[0].measured}" if several else "")
        found = {
            reference for run in runs for reference in run.references if reference.metric == f"{evaluator}/{metric}"
        }
        if len(found) > 1:
            where = ", ".join(run.name for run in runs)
            raise UserError(f"{where}: {len(found)} references for {evaluator}/{metric}; accepted: one")
        reference = next(iter(found), None)
        return Figure(evaluator, metric, tuple(runs), values, low, high, protocol, named, reference)


def _record(run: Run, evaluator: str) -> Mapping[str, Any]:
    evaluators = run.evaluation["evaluators"]
    return evaluators[evaluator] if evaluator in evaluators else {}


def _same_protocol(first: Run, second: Run, evaluator: str) -> bool:
    return first.measured == second.measured and not mismatch(_record(first, evaluator), _record(second, evaluator))


def own_interval(record: Mapping[str, Any], metric: str) -> tuple[float | None, float | None]:
    """The 95 % interval that an evaluator gave with a number, or made of its standard error; None where it has none."""
    given = record.get(f"{metric}_interval_95") or record.get("intervals_95", {}).get(metric)
    if given:
        return given[0], given[1]
    error = record.get("standard_error", {}).get(metric)
    if error is None:
        return None, None
    value = record["scalars"][metric]
    return value - _NORMAL * error, value + _NORMAL * error


def protocol_words(record: Mapping[str, Any]) -> str:
    """The protocol of an evaluator's record in a few words."""
    if "protocol" in record:
        return f"{record['protocol']}, version {record['version']}"
    words = [record["data"]["split"]] if "split" in record.get("data", {}) else []
    counts = {"examples": "examples", "samples": "samples", "draws": "draws each", "steps": "solver steps"}
    words += [f"{record[key]:,} {unit}" for key, unit in counts.items() if key in record]
    return ", ".join(words)


def read_run(path: Path) -> Run:
    """A collected run; raises UserError for files that are missing or references that fit no number."""
    config, evaluation, environment = (
        read_json(path / f"{name}.json") for name in ("config", "evaluation", "environment")
    )
    records = read_json(path / REFERENCES) if (path / REFERENCES).exists() else []
    return Run(path, config, evaluation, environment, checked(records, evaluation, str(path / REFERENCES)))


def read_runs(folder: Path) -> list[Run]:
    """Every collected run of a folder, by name."""
    return [read_run(path) for path in sorted(path.parent for path in folder.glob("*/evaluation.json"))]


def groups_of(runs: Iterable[Run]) -> list[Group]:
    """The groups by name.

    Raises:
      UserError: two runs of one config have the same seed, so that they are one result and not two.
    """
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        by_config.setdefault(_key(run.config), []).append(run)
    found: dict[str, Group] = {}
    for members in by_config.values():
        members.sort(key=lambda run: (run.seed, run.name))
        for first, second in itertools.pairwise(members):
            if first.seed == second.seed:
                raise UserError(
                    f"{first.path} and {second.path} are of the same config and seed {first.seed}; "
                    "accepted: one of them, since they are one result"
                )
        name = unique = _name(members[0])
        while unique in found:
            unique = f"{name} ({int(unique.removeprefix(name).strip(' ()') or 1) + 1})"
        found[unique] = Group(unique, tuple(members))
    return [found[name] for name in sorted(found)]


def _key(config: Mapping[str, Any]) -> str:
    """What makes two runs the same but for their seeds: not where data lay, nor what only decides how fast it went."""
    data = {**config["data"], "options": {k: v for k, v in config["data"]["options"].items() if k != "data_dir"}}
    kept = {name: config["accelerator"][name] for name in ("compute_dtype", "accumulation")}
    rest = {name: section for name, section in config.items() if name != "seed"}
    return json.dumps({**rest, "data": data, "accelerator": kept}, sort_keys=True, default=str)


def _name(run: Run) -> str:
    """Family and config file with the settings that the command changed, without the seed and the machine's."""
    argv = run.environment["argv"]
    file = config_file(argv)
    words = [f"{run.evaluation['family']}/{run.name if file is None else Path(file).stem}"]
    given = next((argument for argument in argv if argument.startswith("--config=")), "").partition(":")[2]
    words += ["smoke"] if "smoke" in given.split(",") else []
    changed = [argument.removeprefix("--config.") for argument in argv if argument.startswith("--config.")]
    changed += [argument.removeprefix("--vary=") for argument in argv if argument.startswith("--vary=")]
    for name in dict.fromkeys(setting.partition("=")[0].removeprefix("config.") for setting in changed):
        if name not in ("seed", "data.options.data_dir") and not name.startswith("accelerator."):
            value = functools.reduce(
                lambda section, key: section[key] if isinstance(section, Mapping) and key in section else "",
                name.split("."),
                run.config,
            )
            words.append(f"{name}={value}")
    return " ".join(words)
