"""What a run does when a loss or a gradient is nothing one can go on with.

The device says so for each step: ``flagged`` looks at the few numbers that a step gives anyway. What follows is decided
on the host by the config's section ``divergence``: the run stops, or it goes back to its last checkpoint and tries
another way. Whether it went back is part of what a run is, so ``Journal`` keeps it in the work folder: a run killed
around a rollback ends with the same bits as one that was left alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from genjax import rng, tree
from genjax.families.base import TrainState
from genjax.io.files import read_record, write_json
from genjax.train.sharding import put, replicated
from genjax.types import Array, Metrics, Params, UserError

FLAG = "diverged"  # among the metrics of a step on the device
HISTORY = 20  # steps whose metrics are evidence
_NORM = "grad_norm"  # at the end of the names of gradient norms


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The section ``divergence`` of a config.

    Args:
      policy: "stop" ends the run, or in a population the member; "rollback" goes back to the last checkpoint.
      max_grad_norm: of each network, before clipping; a larger one counts as divergence. 0 for no limit.
      rollbacks: of one run at most; the next divergence ends it.
      rate_factor: on all learning rates, at each rollback.
      reseed: whether a rollback gives the run another order of data, and other noise.

    Raises:
      ValueError: a setting is out of range.
    """

    policy: str = "stop"
    max_grad_norm: float = 0.0
    rollbacks: int = 3
    rate_factor: float = 0.5
    reseed: bool = True

    def __post_init__(self):
        if self.policy not in ("stop", "rollback"):
            raise ValueError(f"policy={self.policy!r} is unknown; accepted: stop, rollback")
        if not self.max_grad_norm >= 0:
            raise ValueError(f"max_grad_norm={self.max_grad_norm}; accepted: a number from 0, which is no limit")
        if self.rollbacks < 1:
            raise ValueError(f"rollbacks={self.rollbacks}; accepted: a positive whole number")
        if not 0 < self.rate_factor <= 1:
            raise ValueError(f"rate_factor={self.rate_factor}; accepted: a number above 0, at most 1")
        if self.policy == "rollback" and self.rate_factor == 1 and not self.reseed:
            raise ValueError("policy=rollback with rate_factor=1 and reseed=False would diverge again; change either")


def flagged(metrics: Metrics, max_grad_norm: float = 0.0) -> Array:
    """Whether a step's metrics are such that training can't go on: bool scalar, on the device."""
    bad = [~jnp.isfinite(value) for value in metrics.values()]
    if max_grad_norm:
        bad += [value > max_grad_norm for name, value in metrics.items() if name.endswith(_NORM)]
    return jnp.any(jnp.stack(bad))


def first_flagged(values: Mapping[str, np.ndarray], max_grad_norm: float = 0.0) -> tuple[int, dict[str, float]] | None:
    """Of the metrics ``[count]`` of some steps, ``FLAG`` among them: the first bad step, and what is bad about it."""
    if not values[FLAG].any():
        return None
    at = int(np.flatnonzero(values[FLAG])[0])
    numbers = {name: float(value[at]) for name, value in values.items() if name != FLAG}
    limited = lambda name: max_grad_norm and name.endswith(_NORM)  # noqa: E731
    bad = {n: v for n, v in numbers.items() if not np.isfinite(v) or (limited(n) and v > max_grad_norm)}
    return at, bad


def unsound(state: TrainState, mesh: Mesh) -> dict[str, float]:
    """The largest parameter of each network that has one which is not finite; empty where training can go on.

    A step's metrics are from before its update; for a state that is to be kept this looks at what the update made.
    """
    found = _largest(mesh)({name: state.params[name] for name in sorted(state.params)})
    return {f"largest_parameter/{name}": float(value) for name, value in found.items() if not np.isfinite(value)}


@functools.cache
def _largest(mesh: Mesh) -> Callable[[Any], dict[str, Array]]:
    def largest(params: Params) -> Array:  # NaN where one of them is
        sizes = [jnp.max(jnp.abs(leaf), initial=0).astype(jnp.float32) for leaf in jax.tree.leaves(params)]
        return jnp.max(jnp.stack(sizes), initial=0)

    every = lambda params: {name: largest(values) for name, values in params.items()}  # noqa: E731
    return jax.jit(every, out_shardings=replicated(mesh))


def evidence(
    state: TrainState, step: int, indices: Sequence[int], history: Iterable[tuple[int, Mapping[str, float]]]
) -> dict[str, Any]:
    """What may tell why step ``step`` (counted from 1) diverged, as JSON can hold it.

    Args:
      state: of the run when it was noticed, one call of steps later at most.
      indices: of the examples that the step saw, in their order.
      history: the steps up to this one, with their metrics.
    """
    seed = state.hparams["seed"]
    return {
        "seed": int(seed),
        "key": jax.random.key_data(rng.step_key(rng.root(seed), step - 1)).tolist(),
        "batch_indices": np.asarray(indices).tolist(),
        "hparams": {name: float(value) for name, value in state.hparams.items() if name != "seed"},
        "metrics": [{"step": at, **metrics} for at, metrics in history],
        "noticed_at_step": int(state.step),
        "parameter_norms_when_noticed": {name: float(tree.norm(params)) for name, params in state.params.items()},
    }


class Journal:
    """The rollbacks of a run, in ``rollbacks.json``::

        {"rollbacks": [{"number": 1, "step": 31, "to": 20, "seed": 2968811710, "rate_factor": 0.5, ...}, ...]}

    ``step`` diverged, ``to`` is the checkpoint from which the run went on, as with ``seed`` and its learning rates
    times ``rate_factor``. A checkpoint knows how many of them it has behind it. Checkpoint ``given_up``, where there
    is one, was the newest, and the rollback before had gone back to it already.

    Args:
      path: of the file; there is none before the first rollback.
      writes: whether this process may write it.

    Raises:
      UserError: the file can't be read, or holds something else.
    """

    def __init__(self, path: Path, writes: bool = True):
        self._path, self._writes = path, writes
        self.entries: list[dict[str, Any]] = _entries(path) if path.exists() else []

    def append(self, entry: Mapping[str, Any]) -> None:
        self.entries.append({"number": len(self.entries) + 1, **entry})
        self._write()

    def resume(self, step: int, behind: int, state: TrainState, mesh: Mesh) -> TrainState:
        """The state of checkpoint ``step``, changed by the rollbacks up to the last that went back to it.

        Those before it, to newer checkpoints that were given up, count as tried. Rollbacks after it were to checkpoints
        that are gone; they never happened to a run that goes on from here, and are forgotten.

        Args:
          behind: rollbacks that the checkpoint has behind it.
        """
        ahead = self.entries[behind:]
        kept = max((i + 1 for i, entry in enumerate(ahead) if entry["to"] == step), default=0)
        if kept < len(ahead):
            self.entries = self.entries[: behind + kept]
            self._write()
        for entry in ahead[:kept]:
            changed: dict[str, Any] = {"seed": np.uint32(entry["seed"])}
            for name, value in state.hparams.items():
                if name.startswith("learning_rate/"):
                    changed[name] = np.float32(value) * np.float32(entry["rate_factor"])
            state = state.replace(hparams={**state.hparams, **put(changed, replicated(mesh))})
        return state

    def _write(self) -> None:
        if self._writes:
            write_json(self._path, {"rollbacks": self.entries}, parents=False)


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = read_record(path, "rollbacks")["rollbacks"]
    if not isinstance(entries, list):
        raise UserError(f'{path} is not {{"rollbacks": [...]}}; is the file damaged?')
    for number, entry in enumerate(entries, start=1):
        for name in ("to", "seed", "rate_factor"):
            value = entry.get(name) if isinstance(entry, dict) else None
            plain = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**32
            if not plain or (name != "rate_factor" and not isinstance(value, int)):
                raise UserError(f"{path}: rollback {number} has no number {name!r}; is the file damaged?")
    return entries


def reseeded(seed: int, number: int) -> int:
    """The seed after rollback ``number`` of a run begun with ``seed``, in [0, 2^32)."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
