"""A search as a queue of runs: each is proposed from what the others have reached, and hopeless ones are stopped.

The study lies in ``search.db`` of the sweep's folder, so that the same command goes on with the same history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import sweeping
from experiments.executors.base import Verdict, failed
from experiments.sweep_folder import ENDED, STUDY, Sweep, SweepRun
from genjax import populations
from genjax.io.writer import read_metrics
from genjax.sweep import Search, study
from genjax.sweep.study import Study, Trial
from genjax.train.plan import Experiment
from genjax.types import UserError


class Searched:
    """The ``Queue`` of a search.

    Args:
      sweep: its folder, which exists and is locked.
      search: what to look for.
      config: of all runs.
      say: prints a line.

    Attributes:
      sweep: with the runs that were proposed so far.
      adaptive: True.

    Raises:
      UserError: Optuna is not installed, or the folder holds another search.
    """

    adaptive = True

    def __init__(self, sweep: Sweep, search: Search, config: ConfigDict, say: Callable[[str], None] = print):
        self.sweep, self._search, self._config, self._say = sweep, search, config, say
        self._study = Study(search, sweep.path / STUDY)
        self._plans: dict[str, Experiment] = {}  # of the runs that train
        self._trials: dict[str, list[int]] = {}  # that are unfinished, of each run
        self._sizes: dict[str, int] = {}  # of the logs when they were read last
        self._refusal = ""
        self._built = populations.Builder()
        self._left = [run for trial in self._study.unfinished() if (run := self._of(trial)) is not None]

    def take(self) -> SweepRun | None:
        """The next run: one that was interrupted or failed before, or a new proposal while there are to be more."""
        if self._left:
            return self._left.pop(0)
        while not self._refusal and len(self._study) < self._search.trials:
            run = self._of(self._study.ask())
            if run is not None:
                return run
        return None

    def _of(self, trial: Trial) -> SweepRun | None:
        """The run of a proposal, added to the sweep; None where there is nothing to train."""
        self.sweep, (run,) = self.sweep.with_runs([trial.overrides])
        sweeping.write(self.sweep)
        trains = run.name in self._trials  # proposed twice, as a space of few choices makes it
        self._trials.setdefault(run.name, []).append(trial.number)
        if trains:
            return None
        if run.state in ENDED:  # trained before, or the command was killed before it could say so
            self.ended(run)
            return None
        try:
            self._plans |= sweeping.checked(self._config, [run], self._built)
        except UserError as error:
            failed(run, str(error), 2)
            self._say(f"failed: {run.name}: {error}")
            return None
        return run

    def plan(self, run: SweepRun) -> Experiment:
        return self._plans[run.name]

    def verdict(self, run: SweepRun) -> Verdict | None:
        """Whether a run that trains is hopeless, by what it has logged since it was asked last.

        One that has all its steps behind it is left to its last evaluations.
        """
        path = run.workdir.metrics
        size = path.stat().st_size if path.exists() else 0
        if size == self._sizes.get(run.name, 0) and not self._refusal:
            return None
        self._sizes[run.name] = size
        records, total = _records(run), self._plans[run.name].total_steps
        found = [(step, value) for step, value in self._logged(records) if step < total]
        at = self._study.report(self._trials[run.name][0], [value for _, value in found])
        if self._lacks(self._plans[run.name], records):
            self._refuse(records, "no evaluation during training gives")
        if any(record["step"] >= total for record in records):
            return None
        if self._refusal:
            return Verdict(self._refusal, records[-1]["step"] if records else 0)
        if at is None:
            return None
        step, value = found[at - 1]
        share = f"the best {1 / self._search.reduction:.0%} of the runs that came as far"
        return Verdict(f"{self._search.metric} {value:.5g} at step {step} is not among {share}", step)

    def ended(self, run: SweepRun) -> None:
        """Tells the study how a run ended; one that failed or was interrupted stays to be tried again."""
        if self._refusal and run.state == "stopped" and run.reason == self._refusal:
            run.workdir.stopped.unlink()  # for it is the search that was wrong
        state, records = run.state, _records(run)
        found = self._logged(records)
        self._plans.pop(run.name, None)
        if state not in ENDED:
            return
        if state == "finished" and not found:
            self._refuse(records, "no run logs")
            return
        for number in self._trials.pop(run.name, []):
            if state == "finished":
                self._study.finish(number, found[-1][1])
            else:
                self._study.prune(number)

    def _lacks(self, plan: Experiment, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether all evaluators have run that can give the metric in time, and none did."""
        during = [scheduled.every for scheduled in plan.evaluators if scheduled.every is not None]
        if len(during) < len(plan.evaluators) and self._search.pruner == "none":  # the last ones may give it
            return False
        if self._search.metric.startswith(("train/", "speed/")) or self._logged(records):
            return False
        evaluated = [r["step"] for r in records if any(name.startswith("eval/") for name in r)]
        return any(all(step % every == 0 for every in during) for step in evaluated)

    def _refuse(self, records: Sequence[Mapping[str, Any]], what: str) -> None:
        """Proposes nothing more, for the metric is none; what was said first stays, by which ``ended`` knows it."""
        if self._refusal:
            return
        names = {name for record in records for name in record}
        there = ", ".join(sorted(name for name in names if name.startswith("eval/"))) or "none of eval/"
        self._refusal = f"the search is for {self._search.metric}, which {what}; accepted: {there}"

    def _logged(self, records: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
        """The metric at each evaluation so far, with its step."""
        return [(record["step"], record[self._search.metric]) for record in records if self._search.metric in record]

    def close(self) -> None:
        """Says which run is the best so far. Raises UserError where the search was for a metric that is none."""
        if self._refusal:
            raise UserError(self._refusal)
        logged = {run.name: self._logged(_records(run)) for run in self.sweep.runs if run.state == "finished"}
        last = {name: found[-1][1] for name, found in logged.items() if found and math.isfinite(found[-1][1])}
        if last:
            name, value = {"max": max, "min": min}[self._search.mode](last.items(), key=lambda item: item[1])
            self._say(f"best: {name} ({self._search.metric} {value:.5g}) of {len(self._study)} trials")


def _records(run: SweepRun) -> list[dict[str, Any]]:
    """What a run has logged so far."""
    try:
        return read_metrics(run.workdir.metrics)
    except UserError:
        return []


def checked(search: Search, config: ConfigDict, sweep: Sweep) -> tuple[dict[str, Experiment], int]:
    """Draws a run and checks that it could be trained, and that the folder holds no other search; nothing is written.

    Returns:
      The experiment of the run, by name, and how many trials the folder holds.

    Raises:
      UserError: a setting of the space does not exist or does not fit, the folder holds a search for another metric,
        or Optuna is not installed.
    """
    trials = study.begun(search, sweep.path / STUDY)
    _, (run,) = sweep.with_runs([Study(search, None).ask().overrides])
    return sweeping.checked(config, [run]), trials
