"""Runs evaluators on a state and gathers what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import Mesh

from genjax.evaluators.base import Context, Report
from genjax.families.base import TrainState
from genjax.train.compilation import compiler_options
from genjax.train.plan import Experiment, Scheduled
from genjax.train.sharding import replicated
from genjax.train.steps import Functions


def context_of(
    plan: Experiment,
    functions: Functions,
    state: TrainState,
    mesh: Mesh,
    stop: Callable[[], bool] = lambda: False,
) -> Context:
    """Both splits and the functions of an experiment, with ``state`` to judge."""
    place = replicated(mesh)
    return Context(
        functions=functions,
        state=state,
        source=plan.test,
        spec=plan.train.spec,
        seed=plan.config["seed"],
        batch_size=plan.config["eval_batch_size"],
        place=lambda tree: jax.device_put(tree, place),
        conditional=plan.family.conditional,
        compiled=lambda function: jax.jit(function, compiler_options=compiler_options()),
        training=plan.train,
        stop=stop,
    )


def evaluate(context: Context, evaluators: Iterable[Scheduled]) -> tuple[Report, dict[str, Any]]:
    """All their findings as one report, and each one's protocol with the seconds it took, by name.

    Raises:
      Stopped: ``context.stop`` became true before all had finished.
    """
    scalars, images, protocols = {}, {}, {}
    for scheduled in evaluators:
        start = time.monotonic()
        report = scheduled.evaluator(context)
        scalars |= report.scalars
        images |= report.images
        if report.scalars:
            record = {"scalars": report.scalars, **report.protocol, "seconds": round(time.monotonic() - start, 3)}
            protocols[scheduled.name] = record
    return Report(scalars, images), protocols
