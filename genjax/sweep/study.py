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
      UserError: Optuna is not installed, or the file can't be used or holds a search for another metric. A search that
        has heard of no result yet may be given another one.
    """

    def __init__(self, search: Search, path: str | os.PathLike[str] | None):
        self.search = search
        self._optuna = _optuna()
        try:
            self._study = self._opened(path)
            if _other(self._study, search) and not _heard(self._study):
                self._study = self._begun_anew(path)
            if not (other := _other(self._study, search)):
                for name, value in _aim(search).items():  # for who reads the file
                    if name not in self._study.user_attrs:
                        self._study.set_user_attr(name, value)
        except Exception as error:  # of SQLite, through SQLAlchemy and Optuna
            raise _unusable(path, error) from error
        if other:
            raise _refused(path, other, search)

    def _opened(self, path: str | os.PathLike[str] | None) -> Any:
        pruners, search = self._optuna.pruners, self.search
        asha = pruners.SuccessiveHalvingPruner(search.first_rung, search.reduction)
        return self._optuna.create_study(
            storage=None if path is None else _url(path),
            study_name=_NAME,
            load_if_exists=True,
            direction={"max": "maximize", "min": "minimize"}[search.mode],
            pruner=asha if search.pruner == "asha" else pruners.NopPruner(),
        )

    def _begun_anew(self, path: str | os.PathLike[str] | None) -> Any:
        """A study with the same trials, for Optuna can't change the direction of one."""
        trials = self._study.get_trials()
        self._optuna.delete_study(study_name=_NAME, storage=_url(path))
        study = self._opened(path)
        study.add_trials(trials)
        return study

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


def begun(search: Search, path: str | os.PathLike[str]) -> int:
    """How many trials the study in a file has, 0 where there is none; the file stays as it is.

    Raises:
      UserError: as ``Study`` raises it.
    """
    if not os.path.exists(path):
        return 0
    optuna = _optuna()
    try:
        study = optuna.load_study(study_name=_NAME, storage=_url(path))
        other = _other(study, search) if _heard(study) else {}
        count = len(study.get_trials(deepcopy=False))
    except KeyError:  # killed before it was made
        return 0
    except Exception as error:
        raise _unusable(path, error) from error
    if other:
        raise _refused(path, other, search)
    return count


def _url(path: Any) -> str:
    return f"sqlite:///{os.path.abspath(path)}"


def _aim(search: Search) -> dict[str, str]:
    return {"metric": search.metric, "mode": search.mode}


def _other(study: Any, search: Search) -> dict[str, str]:
    """What a study looks for, where that is not what ``search`` does."""
    said = {name: value for name, value in study.user_attrs.items() if name == "metric"}
    found = {**_aim(search), **said, "mode": {"MAXIMIZE": "max", "MINIMIZE": "min"}[study.direction.name]}
    return {} if found == _aim(search) else found


def _heard(study: Any) -> bool:
    """Whether a study knows a value of its metric."""
    return any(frozen.values or frozen.intermediate_values for frozen in study.get_trials(deepcopy=False))


def _unusable(path: Any, error: Exception) -> UserError:
    return UserError(f"cannot use {path}: {' '.join(str(error).split())[:160]}")


def _refused(path: Any, other: dict[str, str], search: Search) -> UserError:
    return UserError(f"{path} holds a search for {other}, not for {_aim(search)}; use another folder")


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
