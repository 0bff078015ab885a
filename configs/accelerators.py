"""What an accelerator decides: devices, arithmetic, how many steps a call takes. Never the batch, schedule or loss."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

ACCELERATORS = {
    # One step a call: a loop costs more than it saves there. Two cores are kept busy by one step.
    "cpu": {"compute_dtype": "float32", "steps_per_call": 1},
    "gpu": {"compute_dtype": "bfloat16", "steps_per_call": 20},
    "tpu": {"compute_dtype": "bfloat16", "steps_per_call": 50},
}


def accelerator(name: str) -> ConfigDict:
    """The ``accelerator`` section; "auto" asks jax what there is."""
    platform = jax.default_backend() if name == "auto" else name
    return ConfigDict(
        {
            "platform": name,
            "devices": 1 if platform == "cpu" else -1,  # of each process; -1: all
            "fsdp": 1,  # devices that divide the state among them
            "tensor": 1,  # devices that divide the matrix products of a transformer's blocks
            "deterministic": False,  # whether a GPU gives the same bits each time, more slowly; CPU and TPU do anyway
            "accumulation": 1,  # slices the batch of an update is cut into when memory is short
            "prefetch": 2,  # calls read ahead when the data is streamed
            "memory_budget_mb": 2048,  # a split below this lies on the device, a larger one is streamed
            **ACCELERATORS[platform],
        }
    )
