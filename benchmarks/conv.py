"""Times of ``genjax.ops.conv`` and ``conv_transpose`` as ratios to ``lax``'s own: ``python -m benchmarks.conv``.

Both sides of a ratio run alternately in this one process, so that load on the machine meets both alike; below 1 is
faster. "forward" is the operation, "gradient" a loss with the gradients in the images and in the kernel, "scan" that
gradient in the body of a ``lax.scan`` of two steps (with ``--scan`` only: the native side takes seconds there on
CPU), and "memory" the temporary bytes of the gradient. Where XLA's programs are the same the spread around 1 is the
noise of the machine. No ratio is asserted.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from genjax.ops import conv, conv_transpose
from genjax.train.compilation import compiler_options

BATCH = 128
# operation, taps, stride, input channels, output channels, height and width of the input
SHAPES = [
    ("conv", 3, 1, 1, 32, 28),
    ("conv", 3, 2, 32, 64, 28),
    ("conv", 3, 2, 64, 128, 14),
    ("conv", 4, 2, 1, 64, 28),
    ("conv", 4, 2, 64, 128, 14),
    ("conv", 3, 1, 16, 16, 28),
    ("conv", 3, 1, 32, 32, 14),
    ("conv", 3, 1, 64, 64, 7),
    ("conv_transpose", 4, 2, 128, 64, 7),
    ("conv_transpose", 4, 2, 64, 1, 14),
    ("conv_transpose", 3, 2, 128, 64, 7),
    ("conv_transpose", 3, 2, 64, 32, 14),
    ("conv_transpose", 3, 1, 32, 1, 28),
    ("depthwise", 3, 1, 64, 64, 14),
    ("4 groups", 3, 1, 64, 64, 14),
]
GROUPS = {"depthwise": 64, "4 groups": 4}


def operations(name: str, stride: int) -> tuple[Callable, Callable]:
    """Ours and the native one, each a function of images [B, H, W, C] and a kernel [kh, kw, C, F]."""
    strides = (stride, stride)
    if name == "conv":
        dims = ("NHWC", "HWIO", "NHWC")
        native = lambda x, k: lax.conv_general_dilated(x, k, strides, "SAME", dimension_numbers=dims)  # noqa: E731
        return lambda x, k: conv(x, k, stride=strides), native
    if name in GROUPS:
        groups = GROUPS[name]
        native = lambda x, k: lax.conv_general_dilated(  # noqa: E731
            x, k, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )
        return lambda x, k: conv(x, k, stride=strides, groups=groups), native
    return lambda x, k: conv_transpose(x, k, stride=strides), lambda x, k: lax.conv_transpose(x, k, strides, "SAME")


def gradient(op: Callable) -> Callable:
    return jax.grad(lambda x, k: jnp.sum(jnp.square(op(x, k))), (0, 1))


def scanned(op: Callable) -> Callable:
    def steps(x: jax.Array, k: jax.Array) -> jax.Array:
        def step(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            dx, dk = gradient(op)(x, k + carry)
            return 1e-20 * (jnp.sum(dx) + jnp.sum(dk)), None

        return lax.scan(step, jnp.zeros(()), None, length=2)[0]

    return steps


def compare(functions: list[Callable], operands: tuple, repeats: int) -> tuple[list[float], list[Any]]:
    """Least seconds of each function over alternating runs, and the compiled programs."""
    programs = [jax.jit(f).lower(*operands).compile(compiler_options()) for f in functions]
    times = [float("inf")] * len(programs)
    for repeat in range(repeats + 1):
        for i, program in enumerate(programs):
            start = time.perf_counter()
            jax.block_until_ready(program(*operands))
            if repeat:  # the first run warms up
                times[i] = min(times[i], time.perf_counter() - start)
    return times, programs


def temporary_bytes(program: Any) -> int:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes if analysis is not None else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", action="store_true", help="also the gradient inside lax.scan")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    modes = {"forward": lambda op: op, "gradient": gradient} | ({"scan": scanned} if args.scan else {})
    print(f"jax {jax.__version__}, {jax.default_backend()}, batch {BATCH}; ours / native")
    print(f"{'':44}" + "".join(f"{mode:>10}" for mode in modes) + f"{'memory':>10}")
    for name, taps, stride, c_in, c_out, size in SHAPES:
        x = jax.random.normal(jax.random.key(0), (BATCH, size, size, c_in))
        kernel = 0.1 * jax.random.normal(
            jax.random.key(1), (taps, taps, c_in // GROUPS[name] if name in GROUPS else c_in, c_out)
        )
        row = f"{f'{name} {taps}x{taps} s{stride} {c_in}->{c_out} {size}x{size}':44}"
        memory = float("nan")
        for mode, make in modes.items():
            (ours, native), programs = compare([make(op) for op in operations(name, stride)], (x, kernel), args.repeats)
            row += f"{ours / native:10.2f}"
            if mode == "gradient":
                memory = temporary_bytes(programs[0]) / max(temporary_bytes(programs[1]), 1)
        print(row + f"{memory:10.2f}", flush=True)


if __name__ == "__main__":
    main()
