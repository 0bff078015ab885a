"""What training costs: operations, their rate, the share of what the device could do, memory."""

from __future__ import annotations

import resource
import sys

import jax

# Dense peak in FLOP/s as the makers state it: bfloat16, and float32 as jax computes it by default (TensorFloat-32 on
# these GPUs; on a TPU float32 runs as one bfloat16 pass).
PEAKS = {
    "NVIDIA H200": {"bfloat16": 989e12, "float32": 495e12},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989e12, "float32": 495e12},
    "NVIDIA A100-SXM4-80GB": {"bfloat16": 312e12, "float32": 156e12},
    "NVIDIA A100-SXM4-40GB": {"bfloat16": 312e12, "float32": 156e12},
    "TPU v4": {"bfloat16": 275e12, "float32": 275e12},
    "TPU v5 lite": {"bfloat16": 197e12, "float32": 197e12},
    "TPU v5p": {"bfloat16": 459e12, "float32": 459e12},
    "TPU v6 lite": {"bfloat16": 918e12, "float32": 918e12},
}


def peak_bytes() -> int:
    """The most memory this process has used: on the first device where it counts, else on the host."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


class Cost:
    """Turns a rate of steps into the scalars of the group "speed".

    Args:
      dtype: of the computation, "float32" or "bfloat16".
      devices: that share the work.
    """

    def __init__(self, dtype: str, devices: int):
        self._peak = PEAKS.get(jax.devices()[0].device_kind, {}).get(dtype, 0.0) * devices

    def speed(self, rate: float, images_per_second: float, flops: float) -> dict[str, float]:
        """Scalars by name, without the group.

        Args:
          rate: steps per second.
          images_per_second: of training.
          flops: floating-point operations in one step, 0 where they are not known.
        """
        scalars = {
            "images_per_second": images_per_second,
            "milliseconds_per_step": 1000.0 / rate,
            "peak_memory_mb": peak_bytes() / 2**20,
        }
        if flops:
            scalars["tflops_per_second"] = flops * rate / 1e12
            if self._peak:
                scalars["share_of_peak"] = flops * rate / self._peak
        return scalars
