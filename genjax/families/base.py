"""The seam: what every model family looks like to the runner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genjax.types import Array, Batch, ImageSpec, Key, Metrics, Params, UserError

if TYPE_CHECKING:
    from genjax.families.averaging import Averages


GUIDE = "guide"  # in ``TrainState.frozen``


class TrainState(flax.struct.PyTreeNode):
    """Everything a step needs next time; arrays only, keyed by network (``ema`` by average, the last two by name).

    Attributes:
      step: int32, number of finished steps.
      params: trainable variables of each network.
      collections: its other variables, such as running batch statistics.
      opt: its optimizer state.
      ema: variables averaged over steps (parameters and collections), one entry for each average. The one that
        evaluation uses has the network's own name; a network that is not averaged has none.
      frozen: what is used and not trained, such as the state of a model that guides this one's samples.
      hparams: the numbers a sweep may change without compiling again, the seed among them.
      extra: whatever else a family carries along.
    """

    step: Array
    params: Mapping[str, Params]
    collections: Mapping[str, Params]
    opt: Mapping[str, Any]
    ema: Mapping[str, Params]
    frozen: Mapping[str, Any]
    hparams: Mapping[str, Array]
    extra: Mapping[str, Array]

    def variables(self, name: str) -> Params:
        """What ``network.apply`` takes in training: current parameters and collections."""
        return {"params": self.params[name], **self.collections[name]}

    def averaged(self, name: str) -> Params:
        """What ``network.apply`` takes in evaluation: the averaged variables where there are some."""
        return self.ema[name] if name in self.ema else self.variables(name)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax transformation without its learning rate, which lives in ``state.hparams``.

    Attributes:
      transform: gives the direction of descent; the step taken is ``-learning_rate * schedule(step) * direction``.
      learning_rate: where ``hparams`` starts.
      schedule: multiplier as a function of the step, in [0, 1].
    """

    transform: optax.GradientTransformation
    learning_rate: float
    schedule: Callable[[Array], Array] = lambda step: jnp.ones(())

    def init(self, params: Params) -> Any:
        return self.transform.init(params)

    def update(self, grads: Params, opt: Any, params: Params, learning_rate: Array, step: Array) -> tuple[Params, Any]:
        """New parameters and optimizer state."""
        direction, opt = self.transform.update(grads, opt, params)
        rate = -learning_rate * self.schedule(step)
        return jax.tree.map(lambda p, d: p + (rate * d).astype(p.dtype), params, direction), opt


@dataclasses.dataclass(frozen=True)
class Family:
    """Pure functions over one state. None of them is compiled; ``train/steps.py`` does that.

    Attributes:
      name: as in the config.
      spec: of the images it was built for.
      microbatches: M, the slices one step consumes (gradient accumulation times discriminator updates).
      slice_size: B, the examples in each of them.
      conditional: whether ``sample`` reads its labels.
      init: ``(key, batch [B, ...]) -> TrainState``.
      train_step: ``(state, batch [M, B, ...], key) -> (TrainState, {name: scalar})``.
      eval_step: ``(state, batch [B, ...], key) -> {name: [B]}``, one value per example: the caller masks and reduces.
        It must not depend on how examples are batched, so its randomness comes from ``batch["index"]``.
      sample: ``(state, keys [B], labels int32 [B]) -> images float32 [B, H, W, C] in [0, 1]``; image i is a function of
        keys[i] and labels[i] alone. None for a family that can't.
      hparams: where the numbers in ``state.hparams`` start, the seed aside.
      extras: other pure functions, optional, picked by evaluators by name.
      headline: the two or three training metrics worth a place in the progress bar.
      ema_lengths: relative length of each power-function average in ``TrainState.ema``, by its name there
        (``averaging.power_lengths``). Averages of other lengths can be rebuilt from these.
      sampling: JSON-able settings that act on samples alone (sampler, guidance), defaults included, for records.
      evaluations: network evaluations of one sample, guidance included; None where there are no steps to count, or the
        data decide.
      denoise: ``(state, u [B, H, W, C], level [B], labels [B]) -> [B, H, W, C]``, the expected data x in [-1, 1] given
        u = (x + level * noise) / sqrt(1 + level^2), where the level may be infinite; None for a family that can't tell.
      guided: ``(weak Family, scale) -> Family``, the same but for samples, which are moved away from what a weaker
        model denoises to; that model's state is in ``state.frozen[GUIDE]``. ``weak`` has ``denoise`` and images of the
        same shape. None for a family that can't be guided.
    """

    name: str
    spec: ImageSpec
    microbatches: int
    slice_size: int
    conditional: bool
    init: Callable[[Key, Batch], TrainState]
    train_step: Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]
    eval_step: Callable[[TrainState, Batch, Key], dict[str, Array]]
    sample: Callable[[TrainState, Array, Array], Array] | None
    hparams: Mapping[str, float]
    extras: Mapping[str, Callable[..., Any]]
    headline: tuple[str, ...]
    ema_lengths: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluations: int | None = None
    denoise: Callable[[TrainState, Array, Array, Array], Array] | None = None
    guided: Callable[[Family, float], Family] | None = None

    @property
    def examples_per_step(self) -> int:
        return self.microbatches * self.slice_size


def to_signed(image: Array) -> Array:
    """uint8 to float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def condition_classes(spec: ImageSpec, conditional: bool) -> int:
    """Number of classes a network is conditioned on: 0 when it is not; data without labels can't condition."""
    if conditional and spec.classes < 1:
        raise UserError("model.conditional=True needs labels; this data set has none")
    return spec.classes if conditional else 0


def split_variables(variables: Mapping[str, Any]) -> tuple[Params, Params]:
    """Parameters, and the other collections, of what ``network.init`` returns."""
    variables = dict(variables)
    return variables.pop("params"), variables


def learning_rates(optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
    """``{"learning_rate/<network>": ...}``, the names under which the step templates look for them."""
    return {f"learning_rate/{name}": optimizer.learning_rate for name, optimizer in optimizers.items()}


def new_state(
    networks: Mapping[str, Mapping[str, Any]],
    optimizers: Mapping[str, Optimizer],
    hparams: Mapping[str, float],
    averages: Averages | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      networks: variables of each network, as ``network.init`` returns them.
      optimizers: one for each network.
      hparams: numbers that become arrays of the state, learning rates among them (``learning_rates``).
      averages: of the networks' variables; none by default.
    """
    params, collections = {}, {}
    for name, variables in networks.items():
        params[name], collections[name] = split_variables(variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        opt={name: optimizers[name].init(params[name]) for name in networks},
        # Copied: two leaves that share a buffer could not both be donated.
        ema={
            name: jax.tree.map(jnp.copy, dict(networks[average.network])) for name, average in (averages or {}).items()
        },
        frozen={},
        hparams={name: jnp.asarray(value, jnp.float32) for name, value in hparams.items()},
        extra={},
    )


def scan_slices(body: Callable, carry: Any, slices: Any, count: int) -> tuple[Any, Any]:
    """``lax.scan`` of ``body`` over M slices; a single one is called as it is, since a loop has its cost on a CPU."""
    if count == 1:
        carry, out = body(carry, jax.tree.map(lambda x: x[0], slices))
        return carry, jax.tree.map(lambda x: x[None], out)
    return jax.lax.scan(body, carry, slices)
