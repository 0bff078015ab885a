"""What an evaluator is given and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from genjax import rng
from genjax.data.base import Source
from genjax.data.order import eval_batches
from genjax.families.base import TrainState
from genjax.types import Array, ImageSpec, Key, UserError


class CompiledFunctions(Protocol):
    """A family's evaluation functions, ready to call."""

    @property
    def eval_step(self) -> Callable[..., dict[str, Array]]: ...

    @property
    def sample(self) -> Callable[..., Array] | None: ...

    @property
    def extras(self) -> Mapping[str, Callable[..., Any]]: ...


class Stopped(Exception):
    """An evaluation was asked to end before it had a result."""


@dataclasses.dataclass(frozen=True)
class Context:
    """Everything an evaluator may look at.

    Attributes:
      functions: the family's, compiled.
      state: the state to judge.
      source: the evaluation split.
      spec: of the images.
      seed: of the run; evaluation noise depends on it and on nothing else, so that two evaluations can be compared.
      batch_size: examples in one call; the numbers do not depend on it.
      place: puts host arrays of examples on the devices, divided among them where their number allows.
      shared: puts arrays on the devices that each needs whole, such as another network's weights.
      limit: examples any evaluator looks at, at most; 0 for the whole split.
      conditional: whether samples are of the class they are asked to be.
      compiled: makes a compiled function of a pure one, for what is no family's.
      training: the split that the state was trained on; None where nobody said.
      model: JSON-able facts that fix what samples are, for identity cards: family, weights ("averaged", "last", or
        which average), sampling (settings) and dtype (of computation).
      stop: asked before every batch; once it is true the evaluation ends with ``Stopped``.
    """

    functions: CompiledFunctions
    state: TrainState
    source: Source
    spec: ImageSpec
    seed: int
    batch_size: int
    place: Callable[[Any], Any] = lambda tree: tree
    shared: Callable[[Any], Any] = lambda tree: tree
    limit: int = 0
    conditional: bool = False
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function
    training: Source | None = None
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stop: Callable[[], bool] = lambda: False

    def key(self, name: str) -> Key:
        return rng.stream(rng.stream(rng.root(self.seed), "eval"), name)

    def batches(self, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The split in order, the last batch padded and masked; only the first ``limit`` examples unless that is 0."""
        limit = min(limit or self.limit, self.limit or limit)
        seen = 0
        for batch in eval_batches(self.source, self.batch_size):
            if limit and seen >= limit:
                return
            if self.stop():
                raise Stopped
            if limit:
                batch["mask"] = batch["mask"] * (batch["index"] < limit)
            seen += len(batch["mask"])
            yield batch

    def examples(self, num: int) -> dict[str, np.ndarray]:
        """``num`` examples spread evenly over the split (fewer when it is smaller)."""
        return spread(self.source, num)

    def extra(self, name: str, evaluator: str) -> Callable[..., Any]:
        """The family's extra function, or an error that says which evaluator wanted it."""
        if name not in self.functions.extras:
            offered = ", ".join(sorted(self.functions.extras)) or "none"
            raise UserError(f"evaluator {evaluator!r} needs the function {name!r}; this family offers: {offered}")
        return self.functions.extras[name]

    def needs_samples(self) -> Callable[..., Array]:
        """The family's sample function, or an error that it has none."""
        if self.functions.sample is None:
            raise UserError("this family can't sample; accepted: a family with a sample function, such as gan or vae")
        return self.functions.sample

    def samples(self, seed: int, labels: np.ndarray) -> np.ndarray:
        """Images float32 ``[N, H, W, C]`` in [0, 1]; image i depends on (seed, i, labels[i]) alone."""
        sample = self.needs_samples()
        count = len(labels)
        padded = -(-count // self.batch_size) * self.batch_size if count > self.batch_size else count
        index = np.arange(padded)
        labels = np.pad(np.asarray(labels, np.int32), (0, padded - count), mode="edge")
        key = rng.stream(rng.root(seed), "sample")
        step = min(self.batch_size, padded)
        parts = []
        for start in range(0, padded, step):
            if self.stop():
                raise Stopped
            part = slice(start, start + step)
            keys = rng.example_keys(key, index[part])
            parts.append(np.asarray(sample(self.state, self.place(keys), self.place(labels[part]))))
        return np.concatenate(parts)[:count]

    def default_labels(self, num: int) -> np.ndarray:
        """Labels int32 ``[num]``, every class in turn: a grid of ``classes`` columns then has a class a column."""
        return (np.arange(num) % max(self.spec.classes, 1)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluator found.

    Attributes:
      scalars: ``{name: value}``.
      images: ``{name: uint8 [H, W, 3]}``, ready to look at.
      protocol: JSON-able facts that fix what the scalars mean (split, counts, draws, seeds).
    """

    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    images: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)


class Evaluator(Protocol):
    """A metric with its settings."""

    def __call__(self, context: Context) -> Report: ...


@runtime_checkable
class Demanding(Protocol):
    """An evaluator that can say beforehand what it can't judge."""

    def check(self, context: Context) -> None:
        """Raises UserError where a call would. Of the context's state only the structure counts."""
        ...


def spread_indices(source: Source, num: int) -> np.ndarray:
    """int64 ``[num]``, spread evenly over a split; all of it when it is smaller."""
    return np.linspace(0, len(source) - 1, min(num, len(source))).astype(np.int64)


def spread(source: Source, num: int) -> dict[str, np.ndarray]:
    """``num`` examples spread evenly over a split (all when it is smaller), with ``index`` int32 ``[num]``."""
    index = spread_indices(source, num)
    return {**source.gather(index), "index": index.astype(np.int32)}


def check_at_least(lowest: int, **settings: int) -> None:
    """Raises ValueError for a setting below ``lowest``."""
    for name, value in settings.items():
        if value < lowest:
            raise ValueError(f"{name}={value} is too small; accepted: at least {lowest}")


def to_uint8(image: np.ndarray | jax.Array) -> np.ndarray:
    """[0, 1] to 0..255, rounded to nearest."""
    return np.clip(np.asarray(image) * 255.0 + 0.5, 0, 255).astype(np.uint8)
