"""The columns of the comparison: which worker computes a framework, with which options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What `accelerator=` chooses in configs/accelerators.py, which can't be imported without ml_collections.
STEPS_PER_CALL = {"cpu": 1, "gpu": 20}
SCAN = 50


@dataclasses.dataclass(frozen=True)
class Framework:
    """One of the compared ways to train.

    Attributes:
      title: its name in the table.
      module: has ``build(Settings) -> Job``.
      interpreter: "genjax", "torch" or "keras": whose Python it runs under.
      candidates: by device, the settings that are tried in short; the fastest is measured. A peer gets its best.
      tasks: what is measured of it.
      follows: a framework whose fastest settings it takes as well, so that these are not tried twice.
      has_first_step: whether its time to the first step compares: not where the first call takes many.
      left_out: by device, the networks that are not measured, each with one line of why.
    """

    title: str
    module: str
    interpreter: str
    candidates: Mapping[str, tuple[Mapping[str, Any], ...]]
    tasks: tuple[str, ...] = ("train", "sample", "matmul")
    follows: str = ""
    has_first_step: bool = True
    left_out: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)


_LAYOUTS = tuple({"layout": layout} for layout in ("channels_first", "channels_last"))
# OpenMP's threads spin a while before they sleep, which costs a factor where other work wants their core, and saves
# waking them up where none does.
_PASSIVE_LAYOUTS = tuple({**layout, "omp_wait": "passive"} for layout in _LAYOUTS)

# A population of 8 members against one (`family` mapped over the seeds) belongs here as one more row: the same module
# with an option of its own, its unit being 8 batches.
FRAMEWORKS = {
    "genjax": Framework(
        title="genjax",
        module="benchmarks.speed.genjax_job",
        interpreter="genjax",
        candidates={device: ({"steps_per_call": steps},) for device, steps in STEPS_PER_CALL.items()},
    ),
    "scan": Framework(
        title=f"genjax, {SCAN} steps a call",
        module="benchmarks.speed.genjax_job",
        interpreter="genjax",
        candidates={device: ({"steps_per_call": SCAN},) for device in STEPS_PER_CALL},
        tasks=("train",),
        has_first_step=False,
        left_out={"cpu": {"unet": f"{SCAN} steps take most of a minute, next to which what a call costs is nothing"}},
    ),
    "torch": Framework(
        title="PyTorch, eager",
        module="benchmarks.speed.torch_job",
        interpreter="torch",
        candidates={"cpu": _PASSIVE_LAYOUTS + _LAYOUTS, "gpu": _LAYOUTS},
    ),
    "compile": Framework(
        title="torch.compile",
        module="benchmarks.speed.torch_job",
        interpreter="torch",
        candidates={
            "cpu": ({"compile": "default"},),
            "gpu": tuple({"compile": mode} for mode in ("default", "reduce-overhead")),
        },
        tasks=("train", "sample"),
        follows="torch",
    ),
    "keras": Framework(
        title="Keras `fit`",
        module="benchmarks.speed.keras_job",
        interpreter="keras",
        candidates={device: ({"jit_compile": "auto"}, {"jit_compile": False}) for device in STEPS_PER_CALL},
        tasks=("train", "sample"),
        left_out={device: {"unet": "not written in Keras here"} for device in STEPS_PER_CALL},
    ),
}
BASELINE = "genjax"  # whose rate the others' ratios are taken of
