"""Published figures that a config file declares (configs/references.py), as data beside a run."""

from __future__ import annotations

import dataclasses
import itertools
import os
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genjax.evaluators.verdict import smaller_is_better
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Published:
    """A reference of a run; the fields are those of ``configs.references.Reference``."""

    metric: str
    value: float
    source: str
    tolerance: float

    def difference(self, mean: float) -> float:
        """By how much a mean is above the figure."""
        return mean - self.value

    def reached(self, mean: float) -> bool:
        """Whether a mean is no worse than the figure by more than the tolerance; one that is not a number never is."""
        smaller = smaller_is_better(self.metric)
        difference = self.difference(mean)
        worse = abs(difference) if smaller is None else difference if smaller else -difference
        return worse <= self.tolerance

    def mark(self, mean: float, shown: str) -> str:
        """The word for the table: ``reached``, or ``MISSED by`` the difference as ``shown``."""
        return "reached" if self.reached(mean) else f"MISSED by {shown}"


def config_file(argv: Sequence[str]) -> str | None:
    """The config file that a command named, less its argument; None where there is none."""
    given = [argument.partition("=")[2] for argument in argv if argument.startswith("--config=")]
    given += [after for flag, after in itertools.pairwise(argv) if flag == "--config"]
    return given[-1].partition(":")[0] if given else None


def declared(argv: Sequence[str], config: Mapping[str, Any], where: Path) -> list[dict[str, Any]] | None:
    """What the config file named by ``argv`` declares for a run with the resolved ``config``.

    Args:
      argv: of the command that started the run.
      config: of the run.
      where: the folder that the config file has to lie in, so that no work folder can name code from elsewhere.

    Returns:
      The fields of each reference; None where the file is not there.

    Raises:
      UserError: the file declares something that is no reference.
    """
    name = config_file(argv)
    path = None if name is None else Path(os.path.realpath(where / name))
    if path is None or path.suffix != ".py" or not path.is_relative_to(os.path.realpath(where)) or not path.is_file():
        return None
    from ml_collections import ConfigDict

    function = runpy.run_path(str(path)).get("references")
    if function is None:
        return []
    try:
        found = function(ConfigDict(dict(config)))
    except (AttributeError, KeyError) as error:
        missing = " ".join(str(error).split())
        raise UserError(f"{name}: references() asks for a setting that the run has not: {missing}") from error
    fields = {field.name for field in dataclasses.fields(Published)}
    for item in found if isinstance(found, tuple | list) else (found,):
        names = {field.name for field in dataclasses.fields(item)} if dataclasses.is_dataclass(item) else set()
        if names != fields:
            raise UserError(f"{name}: references() gave {item!r}; accepted: a tuple of configs.references.Reference")
    return [dataclasses.asdict(item) for item in found]


def checked(records: Any, evaluation: Mapping[str, Any], where: str) -> tuple[Published, ...]:
    """References from their JSON form.

    Raises:
      UserError: a field is missing or unknown, or a metric is not among the run's numbers.
    """
    fields = {field.name for field in dataclasses.fields(Published)}
    known = [f"{name}/{key}" for name, record in evaluation["evaluators"].items() for key in record["scalars"]]
    found = []
    for record in records if isinstance(records, list) else [records]:
        if not isinstance(record, dict) or set(record) != fields or not str(record["source"]).strip():
            raise UserError(f"{where}: reference {record!r}; accepted: {', '.join(sorted(fields))}, none of them empty")
        if not all(type(record[name]) in (int, float) for name in ("value", "tolerance")):
            raise UserError(f"{where}: reference {record!r}; accepted: numbers as value and tolerance")
        if record["metric"] not in known:
            raise UserError(f"{where}: reference for {record['metric']}: no such number; accepted: {', '.join(known)}")
        found.append(Published(**record))
    return tuple(found)
