"""Runs evaluators on a state and gathers what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from genjax.evaluators.base import Context, Demanding, Report
from genjax.families.base import TrainState
from genjax.train.plan import Experiment, Scheduled
from genjax.train.sharding import put, replicated, spread
from genjax.train.steps import Functions, Trainer, compile_functions, compiled
from genjax.types import UserError


def context_of(
    plan: Experiment,
    functions: Functions,
    state: TrainState,
    mesh: Mesh,
    stop: Callable[[], bool] = lambda: False,
    rebuilt: Mapping[str, Any] | None = None,
) -> Context:
    """Both splits and the functions of an experiment, with ``state`` to judge.

    ``rebuilt`` is what ``posthoc.rebuild`` says of the averages, where they are not the stored ones.
    """
    return Context(
        functions=functions,
        state=state,
        source=plan.test,
        spec=plan.train.spec,
        seed=plan.config["seed"],
        batch_size=plan.config["eval_batch_size"],
        place=lambda examples: spread(examples, mesh),
        shared=lambda arrays: put(arrays, replicated(mesh)),
        conditional=plan.family.conditional,
        compiled=lambda function: compiled(function, mesh),
        training=plan.train,
        model={
            "family": plan.family.name,
            "weights": weights_of(state, rebuilt),
            "sampling": dict(plan.family.sampling),
            "dtype": plan.config["accelerator"]["compute_dtype"],
        },
        stop=stop,
    )


def weights_of(state: TrainState, rebuilt: Mapping[str, Any] | None = None) -> str:
    """Which weights evaluation uses, in words: "averaged" or "last", or what ``posthoc.rebuild`` made."""
    if rebuilt is not None:
        return f"length {rebuilt['length']:g} averaged"
    return "averaged" if any(network in state.ema for network in state.params) else "last"


def check(plan: Experiment, mesh: Mesh) -> None:
    """Asks, before a work folder is begun and without computing a state, whether the mesh and the evaluators fit a run.

    Raises:
      UserError: the mesh does not divide it, or an evaluator can't judge it; the line names it.
    """
    demanding = [(s.name, s.evaluator) for s in plan.evaluators if isinstance(s.evaluator, Demanding)]
    trainer = Trainer(plan.family, mesh, len(plan.train), plan.augment)
    if not demanding and mesh.size == 1:
        return  # to trace a state takes a while, and one device divides nothing
    state = trainer.abstract_state(plan.train.gather(np.zeros(1, np.int64)))
    context = context_of(plan, compile_functions(plan.family, mesh), state, mesh)
    for name, evaluator in demanding:
        try:
            evaluator.check(context)
        except UserError as error:
            raise UserError(f"evaluators.{name}: {error}") from error


def evaluate(context: Context, evaluators: Iterable[Scheduled]) -> tuple[Report, dict[str, Any]]:
    """All their findings as one report, and each one's protocol with the seconds it took, by name.

    Raises:
      Stopped: ``context.stop`` became true before all had finished.
      UserError: one can't judge this, found before any has begun where it can tell.
    """
    evaluators = list(evaluators)
    for scheduled in evaluators:
        if isinstance(scheduled.evaluator, Demanding):
            scheduled.evaluator.check(context)
    scalars, images, protocols = {}, {}, {}
    for scheduled in evaluators:
        start = time.monotonic()
        report = scheduled.evaluator(context)
        # A name that an earlier evaluator used, such as the distance of another protocol, gets its evaluator in front.
        scalars |= {f"{scheduled.name}/{name}" if name in scalars else name: x for name, x in report.scalars.items()}
        images |= report.images
        if report.scalars:
            record = {"scalars": report.scalars, **report.protocol, "seconds": round(time.monotonic() - start, 3)}
            protocols[scheduled.name] = record
    return Report(scalars, images), protocols
