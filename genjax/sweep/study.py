"""The memory of a search, by Optuna: it proposes settings, hears results, and says which trial is hopeless.

A study knows nothing of folders or processes. It lies in one SQLite file, so that a search which was killed goes on
with the same history; a proposal is a function of that history, of the seed and of the trial's number.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

from genjax.sweep.ranges import Choice, Range, Space, When
from genjax.sweep.search import Search
from genjax.sweep.space import Overrides
from genjax.types import UserError

_NAME = "search"  # of the study in its file


@dataclasses.dataclass(frozen=True)
class Trial:
    """A proposal: its number from 0, and the settings to train with."""

    number: int
    overrides: Overrides


class Study:
    """The trials of a search.

    Args:
      search: what to look for.
      path: of the file, made where it is missing; None keeps the study in memory.

    Raises:
      UserError: Optuna is not installed, or the file can't be used or holds a search for another metric.
    """

    def __init__(self, search: Search, path: str | os.PathLike[str] | None):
        self.search = search
        self._optuna = optuna = _optuna()
        asha = optuna.pruners.SuccessiveHalvingPruner(search.first_rung, search.reduction)
        wanted = {"metric": search.metric, "mode": search.mode}
        try:
            self._study = optuna.create_study(
                storage=None if path is None else f"sqlite:///{os.path.abspath(path)}",
                study_name=_NAME,
                load_if_exists=True,
                direction={"max": "maximize", "min": "minimize"}[search.mode],
                pruner=asha if search.pruner == "asha" else optuna.pruners.NopPruner(),
            )
            begun = self._study.user_attrs
            for name, value in wanted.items():
                if name not in begun:
                    self._study.set_user_attr(name, value)
        except Exception as error:  # of SQLite, through SQLAlchemy and Optuna
            raise UserError(f"cannot use {path}: {' '.join(str(error).split())[:160]}") from error
        if begun and begun != wanted:
            raise UserError(f"{path} holds a search for {begun}, not for {wanted}; use another folder")

    def __len__(self) -> int:
        """Trials proposed so far."""
        return len(self._frozen())

    def ask(self) -> Trial:
        """Proposes a new trial, which is unfinished until ``finish`` or ``prune``."""
        self._study.sampler = self._sampler(len(self))
        return self._proposal(self._study.ask())

    def unfinished(self) -> list[Trial]:
        """The trials that have not ended, with the settings that they were proposed with."""
        trials = []
        for frozen in self._frozen():
            if not frozen.state.is_finished():
                # The file knows what was proposed; what a kill in the middle of ``ask`` left out is drawn now.
                self._study.sampler = self._sampler(frozen.number)
                trials.append(self._proposal(self._trial(frozen)))
        return trials

    def report(self, number: int, values: Sequence[float]) -> int | None:
        """Hears the metric of an unfinished trial at each of its evaluations so far.

        Returns:
          The evaluation, from 1, at which the trial turned out to be hopeless; None where it did not.
        """
        frozen = self._frozen()[number]
        if "hopeless" in frozen.user_attrs:  # found before a kill
            return frozen.user_attrs["hopeless"]
        trial = self._trial(frozen)
        for count, value in enumerate(values, 1):
            if count not in frozen.intermediate_values:
                trial.report(value, count)
                if trial.should_prune():
                    trial.set_user_attr("hopeless", count)
                    return count
        return None

    def finish(self, number: int, value: float) -> None:
        """Ends a trial with the last value of its metric; one that is not finite counts as hopeless."""
        if math.isfinite(value):
            self._study.tell(number, value)
        else:
            self.prune(number)

    def prune(self, number: int) -> None:
        """Ends a trial that was stopped early or diverged; to the sampler it is worse than all that finished."""
        self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def values(self) -> dict[int, float]:
        """The results of the trials that finished, by number."""
        complete = self._optuna.trial.TrialState.COMPLETE
        return {frozen.number: frozen.value for frozen in self._frozen() if frozen.state == complete}

    def _frozen(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, frozen: Any) -> Any:
        return self._optuna.trial.Trial(self._study, frozen._trial_id)

    def _sampler(self, number: int) -> Any:
        # Optuna does not store the state of its generators. With one for each trial a search that was killed neither
        # repeats its draws nor depends on where it was killed.
        samplers, seed = self._optuna.samplers, (self.search.seed * 1_000_003 + number) % 2**32
        if self.search.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed, n_startup_trials=self.search.startup)

    def _proposal(self, trial: Any) -> Trial:
        try:
            return Trial(trial.number, _suggested(trial, self.search.space))
        except ValueError as error:  # Optuna keeps to the choices and the scale that a setting began with
            raise UserError(f"the search began with another space: {error}; use another folder") from error


def _suggested(trial: Any, space: Space) -> Overrides:
    chosen: Overrides = {}
    for name, domain in space.items():
        if isinstance(domain, When):
            if not domain.holds(chosen):
                continue
            domain = domain.domain
        chosen[name] = _drawn(trial, name, domain)
    return chosen


def _drawn(trial: Any, name: str, domain: Range | Choice) -> Any:
    if isinstance(domain, Choice):
        options = {repr(option): option for option in domain.options}  # Optuna takes no tuples
        return options[trial.suggest_categorical(name, list(options))]
    if domain.scale == "log_to_one":  # which Optuna has not
        return domain.at(trial.suggest_float(name, 0.0, 1.0))
    log = domain.scale == "log"
    if domain.integer:
        return domain.kept(trial.suggest_int(name, int(domain.low), int(domain.high), log=log))
    return domain.kept(trial.suggest_float(name, domain.low, domain.high, log=log))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError("a search needs Optuna: pip install 'genjax[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
