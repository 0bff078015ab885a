"""Runge-Kutta methods that choose their own steps, by diffrax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from genjax.processes.paths import Path, expand
from genjax.samplers.base import Denoiser, Sampler, evaluate, slope
from genjax.types import Array, Key, check_positive

METHODS = {"dopri5": "Dopri5", "tsit5": "Tsit5"}


def check_adaptive(method: str, rtol: float, atol: float, max_steps: int) -> None:
    """Raises ValueError unless these are settings of ``integrate``."""
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; accepted: {', '.join(METHODS)}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value} is out of range; accepted: above 0 and below 1")
    check_positive(max_steps=max_steps)


def integrate(
    field: Callable[[Array, Any], Any],
    t0: Array,
    t1: Array,
    y: Any,
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
) -> Any:
    """y(t1) of dy/dt = ``field(t, y)`` with y(t0) = ``y``; rows are NaN whose ``max_steps`` are not enough.

    Each row takes its own steps. The local error, in units of ``atol + rtol |y|``, is kept below 1 by a PI controller
    (Söderlind 2003).

    Args:
      field: (t ``[B]``, y) -> dy/dt, always of all rows in their order, so that it may know more of a row than its y
        (a label); a row's slope must depend on that row alone.
      t0, t1: scalars.
      y: arrays ``[B, ...]``.
      method, rtol, atol, max_steps: what ``check_adaptive`` accepts.
    """
    import diffrax  # it takes a second to import, and few runs need it

    slope_of_row, known = _by_row(field, t0, y)

    def one(y: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, known: slope_of_row(known, jnp.asarray(t), y)),
            getattr(diffrax, METHODS[method])(),
            t0,
            t1,
            None,
            y,
            known,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol, pcoeff=0.3, icoeff=0.4),
            saveat=diffrax.SaveAt(t1=True),
            max_steps=max_steps,
            throw=False,
        )
        done = solution.result == diffrax.RESULTS.successful
        return jax.tree.map(lambda values: jnp.where(done, values[0], jnp.nan), solution.ys)

    return jax.vmap(one)(y)


def _by_row(field: Callable[[Array, Any], Any], t: Array, y: Any) -> tuple[Callable[[Any, Array, Any], Any], Any]:
    """``field`` as a function of one row for a solver to loop over, which a ``vmap`` over the rows makes whole again.

    A rule of ``vmap`` can't close over arrays that are being traced, as ``field`` may, so that they are an argument.

    Args:
      field: (t ``[B]``, y ``[B, ...]``) -> dy/dt.
      t, y: of what shape and precision its arguments are, t that of one row.

    Returns:
      ``(known, t, y) -> dy/dt`` of one row, and ``known``, the arrays that ``field`` closes over.
    """
    count = jax.tree.leaves(y)[0].shape[0]

    def spread(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (count, *leaf.shape))

    program, shapes = jax.make_jaxpr(field, return_shape=True)(spread(t), y)
    structure = jax.tree.structure(shapes)

    def whole(known: Any, t: Array, y: Any) -> Any:
        return structure.unflatten(eval_jaxpr(program.jaxpr, known, t, *jax.tree.leaves(y)))

    @jax.custom_batching.custom_vmap
    def row(known: Any, t: Array, y: Any) -> Any:
        """Traced for the shape of its result; ``all_rows`` is what runs."""
        return jax.tree.map(lambda leaf: leaf[0], whole(known, spread(t), jax.tree.map(spread, y)))

    @row.def_vmap
    def all_rows(size: int, mapped: Any, known: Any, t: Array, y: Any) -> Any:
        _, *rows = mapped
        t, y = jax.tree.map(lambda leaf, has: leaf if has else spread(leaf), (t, y), tuple(rows))
        slopes = whole(known, t, y)
        return slopes, jax.tree.map(lambda _: True, slopes)

    return row, program.consts


@dataclasses.dataclass(frozen=True)
class Adaptive(Sampler):
    """The probability-flow ODE (Song et al. 2021b, eq. 13) by an adaptive method of order 5, then the denoiser's step.

    Each image takes its own steps, so that it does not depend on the others; a batch goes on until its slowest image
    has finished. Images that need more than ``max_steps`` are NaN. The method evaluates the denoiser six times a step,
    also for steps that it rejects.

    Attributes:
      method: "tsit5" (Tsitouras 2011) or "dopri5" (Dormand & Prince 1980, SciPy's RK45).
      rtol, atol: relative and absolute tolerance of the local error, in (0, 1).
      max_steps: the most steps that an image may take.

    Raises:
      ValueError: a setting is out of its range.
    """

    method: str = "tsit5"
    rtol: float = 1e-3
    atol: float = 1e-3
    max_steps: int = 1000

    def __post_init__(self):
        check_adaptive(self.method, self.rtol, self.atol, self.max_steps)

    @property
    def points(self) -> int:
        """Two: where the noise is, and where the denoiser takes over."""
        return 2

    @property
    def evaluations(self) -> int | None:
        return None

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        def field(t: Array, x: Array) -> Array:
            p, q = slope(path, t)
            return expand(p, x) * x + expand(q, x) * evaluate(function, x, t)

        x = integrate(field, t[0], t[1], x, self.method, self.rtol, self.atol, self.max_steps)
        return evaluate(function, x, t[1]) if final else x
