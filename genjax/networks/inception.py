"""Inception-v3 as the FID and the Inception score use it.

Szegedy et al. 2016, Rethinking the Inception architecture for computer vision, in the form of the TensorFlow graph
``inception-2015-12-05`` with which Heusel et al. 2017 (GANs trained by a two time-scale update rule) define the FID. It
differs from the published network in two places: average pools do not count the zeros outside the image, and the last
block has a maximum where the others have a mean. Its weights are in the PyTorch file
``pt_inception-2015-12-05-6726825d.pth``; the digits at the end begin the SHA-256 of that file.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax.networks.cnn import global_mean
from genjax.networks.pretrained import ConvReLU, Weights, check_side, dense, folded, parameter_shapes, rgb
from genjax.ops.resize import resize
from genjax.types import Array

EPSILON = 1e-3  # of the batch norm
SIDE = 299
RESIZES = {"legacy": "tensorflow1", "torch": "torch_bilinear", "clean": "pillow_bicubic"}


class InceptionFeatures(NamedTuple):
    """What Inception-v3 says about images; a compiled program computes only what is used of it.

    stages           three maps float32, none negative: ``[B, 73, 73, 64]``, ``[B, 35, 35, 192]`` and
                     ``[B, 17, 17, 768]`` of 299x299 images. Their means over the grid are the "64", "192" and "768"
                     features of torch-fidelity and pytorch-fid
    pooled           float32 ``[B, 2048]``, none negative: the features of FID, KID and precision/recall
    logits           float32 ``[B, 1008]``
    logits_unbiased  the same without the bias of the last layer. The code of Salimans et al. 2016, and torch-fidelity
                     after it, computes the Inception score of these; other code uses ``logits``: say which
    """

    stages: tuple[Array, ...]
    pooled: Array
    logits: Array
    logits_unbiased: Array


def average_pool(x_BHWC: Array) -> Array:
    """Mean over the part of each 3x3 window that lies inside the image, ``[B, H, W, C]``."""
    return nn.avg_pool(x_BHWC, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x_BHWC: Array, stride: int) -> Array:
    """Maximum over 3x3 windows; with a stride of 2 over those wholly inside the image."""
    return nn.max_pool(x_BHWC, (3, 3), (stride, stride), "SAME" if stride == 1 else "VALID")


# A block is branches, and a branch is steps one after the other. A step is a convolution (name, features, kernel size,
# stride), the last two 1 where left out; the name of a pool; or convolutions side by side.
Step = tuple | str
Branches = tuple[tuple[Step, ...], ...]

_DOUBLE = ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3)
_ROW, _COLUMN = (1, 7), (7, 1)


def mixed_5(pool_features: int) -> Branches:
    """On the 35x35 grid, ``[B, H, W, C]`` to ``[B, H, W, 224 + pool_features]``: 1x1, 5x5, two 3x3, and a pool."""
    return (
        (("branch1x1", 64),),
        (("branch5x5_1", 48), ("branch5x5_2", 64, 5)),
        (*_DOUBLE, ("branch3x3dbl_3", 96, 3)),
        ("mean", ("branch_pool", pool_features)),
    )


MIXED_6A: Branches = ((("branch3x3", 384, 3, 2),), (*_DOUBLE, ("branch3x3dbl_3", 96, 3, 2)), ("halving",))
"""From the 35x35 to the 17x17 grid, ``[B, H, W, C]`` to ``[B, (H - 1) // 2, (W - 1) // 2, 480 + C]``."""


def mixed_6(width: int) -> Branches:
    """On the 17x17 grid, ``[B, H, W, C]`` to ``[B, H, W, 768]``: 1x1, one and two 7x7 as rows and columns, a pool."""
    return (
        (("branch1x1", 192),),
        (("branch7x7_1", width), ("branch7x7_2", width, _ROW), ("branch7x7_3", 192, _COLUMN)),
        (
            ("branch7x7dbl_1", width),
            ("branch7x7dbl_2", width, _COLUMN),
            ("branch7x7dbl_3", width, _ROW),
            ("branch7x7dbl_4", width, _COLUMN),
            ("branch7x7dbl_5", 192, _ROW),
        ),
        ("mean", ("branch_pool", 192)),
    )


MIXED_7A: Branches = (
    (("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)),
    (
        ("branch7x7x3_1", 192),
        ("branch7x7x3_2", 192, _ROW),
        ("branch7x7x3_3", 192, _COLUMN),
        ("branch7x7x3_4", 192, 3, 2),
    ),
    ("halving",),
)
"""From the 17x17 to the 8x8 grid, ``[B, H, W, C]`` to ``[B, (H - 1) // 2, (W - 1) // 2, 512 + C]``."""


def mixed_7(pool: str) -> Branches:
    """On the 8x8 grid, ``[B, H, W, C]`` to ``[B, H, W, 2048]``: 1x1, two that end in a row beside a column, a pool."""
    return (
        (("branch1x1", 320),),
        (("branch3x3_1", 384), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
        (
            ("branch3x3dbl_1", 448),
            ("branch3x3dbl_2", 384, 3),
            (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, ("branch_pool", 192)),
    )


BLOCKS: dict[str, Branches] = {
    "Mixed_5b": mixed_5(32),
    "Mixed_5c": mixed_5(64),
    "Mixed_5d": mixed_5(64),
    "Mixed_6a": MIXED_6A,
    "Mixed_6b": mixed_6(128),
    "Mixed_6c": mixed_6(160),
    "Mixed_6d": mixed_6(160),
    "Mixed_6e": mixed_6(192),
    "Mixed_7a": MIXED_7A,
    "Mixed_7b": mixed_7("mean"),
    "Mixed_7c": mixed_7("max"),
}


class Mixed(nn.Module):
    """Branches of the same input, with their channels one after the other."""

    branches: Branches

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        return jnp.concatenate([self._branch(x_BHWC, *branch) for branch in self.branches], axis=-1)

    def _branch(self, x_BHWC: Array, *steps: Step) -> Array:
        """Convolutions of stride 2 see only what lies inside the image, the others keep its size."""
        pools = {"mean": average_pool, "max": lambda x: max_pool(x, 1), "halving": lambda x: max_pool(x, 2)}
        for step in steps:
            if isinstance(step, str):
                x_BHWC = pools[step](x_BHWC)
            elif isinstance(step[0], tuple):
                x_BHWC = jnp.concatenate([self._branch(x_BHWC, side) for side in step], axis=-1)
            else:
                name, features, *rest = step
                kernel, stride = (*rest, 1, 1)[:2]
                window = (kernel, kernel) if isinstance(kernel, int) else kernel
                padding = "SAME" if stride == 1 else "VALID"
                x_BHWC = ConvReLU(features, window, (stride, stride), padding, name=name)(x_BHWC)
        return x_BHWC


class InceptionV3(nn.Module):
    """Inception-v3 for inference: batch norm is folded into the convolutions, so there is no training mode."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> InceptionFeatures:
        """Features of images float32 ``[B, H, W, 3]``, RGB in [-1, 1] as ``inception_input`` makes them.

        The FID's are 299x299; any size from 75x75 works. Sums are full float32 on every platform.

        Raises:
          ValueError: another shape.
        """
        check_side(x_BHWC, 75)
        with jax.default_matmul_precision("highest"):
            x_BHWC = ConvReLU(32, (3, 3), (2, 2), "VALID", name="Conv2d_1a_3x3")(x_BHWC.astype(jnp.float32))
            x_BHWC = ConvReLU(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x_BHWC)
            stages = [max_pool(ConvReLU(64, (3, 3), name="Conv2d_2b_3x3")(x_BHWC), 2)]
            x_BHWC = ConvReLU(80, (1, 1), name="Conv2d_3b_1x1")(stages[-1])
            stages += [max_pool(ConvReLU(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x_BHWC), 2)]
            x_BHWC = stages[-1]
            for name, branches in BLOCKS.items():
                x_BHWC = Mixed(branches, name=name)(x_BHWC)
                stages += [x_BHWC] if name == "Mixed_6e" else []
            pooled_BD = global_mean(x_BHWC)
            kernel = self.param("fc_kernel", nn.initializers.lecun_normal(), (2048, 1008))
            bias = self.param("fc_bias", nn.initializers.zeros, (1008,))
            unbiased = pooled_BD @ kernel
            return InceptionFeatures(tuple(stages), pooled_BD, unbiased + bias, unbiased)


def inception_input(images: Array, mode: str) -> Array:
    """What Inception-v3 takes, of images in [0, 255], resized to 299x299 by the rule of one reference implementation.

    Args:
      images: uint8 or float ``[B, H, W, 1 or 3]``, RGB in [0, 255]; a single channel is repeated.
      mode: "legacy": bilinear as in TensorFlow 1, which moves the image up and left and does not antialias, then
        ``(x - 128) / 128``: the original graph, and torch-fidelity, which takes uint8.
        "torch": bilinear as in PyTorch, without antialias, of x / 255, then ``2 x - 1``: pytorch-fid, which takes
        [0, 1].
        "clean": bicubic with antialias as in Pillow, of floats, cut to [0, 255], then ``(x - 128) / 128``: the mode
        "clean" of clean-fid (Parmar et al. 2022), which takes uint8.

    Returns:
      float32 ``[B, 299, 299, 3]``, in [-1, 0.9922] ("torch": in [-1, 1]).

    Raises:
      ValueError: no such mode, or another shape.
    """
    if mode not in RESIZES:
        raise ValueError(f"mode={mode!r} is unknown; accepted: {', '.join(sorted(RESIZES))}")
    x = resize(rgb(images), (SIDE, SIDE), RESIZES[mode])
    if mode == "torch":
        return x * (2.0 / 255.0) - 1.0
    return (jnp.clip(x, 0.0, 255.0) - 128.0) / 128.0


def load_inception_v3(weights: Weights, where: str = "weights of Inception-v3") -> dict[str, Any]:
    """Variables of ``InceptionV3`` from arrays under the names of either file that has them.

    Args:
      weights: of any float type, as ``genjax.io.torch_weights.read_weights`` reads them; other names are left alone.
        ``Conv2d_1a_3x3.conv.weight``, ``Conv2d_1a_3x3.bn.*``, ``Mixed_5b.branch1x1.conv.weight`` and so on, and
        ``fc.*`` of ``pt_inception-2015-12-05-6726825d.pth``, or the names of ``inception-2015-12-05.pt``
        (``script_names``).
      where: what they came from, for the message.

    Returns:
      {"params": ...}, float32.

    Raises:
      UserError: an array is missing, of another shape, or not finite.
    """
    params = shapes()
    weights = _as_pth(weights) if "layers.conv.weight" in weights else weights

    def load(name: str, part: Any) -> dict[str, Any]:
        if "kernel" in part:
            return folded(weights, f"{name}.conv", f"{name}.bn", part, EPSILON, where)
        return {key: load(f"{name}.{key}", layer) for key, layer in part.items()}

    last = dense(weights, "fc", params["fc_kernel"].shape, where)
    loaded = {name: load(name, part) for name, part in params.items() if not name.startswith("fc_")}
    return {"params": {**loaded, "fc_kernel": last["kernel"], "fc_bias": last["bias"]}}


shapes = functools.cache(functools.partial(parameter_shapes, InceptionV3(), 75))


def script_names() -> dict[str, str]:
    """What the TorchScript file ``inception-2015-12-05.pt`` calls each convolution, by its name in the ``.pth`` file.

    It has the names of the TensorFlow graph: a branch of one convolution is ``conv``, the others are ``tower``,
    ``tower_1`` and so on, in their order, and their convolutions ``conv``, ``conv_1`` and so on.
    """
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    names = {layer: f"layers.{_counted('conv', i)}" for i, layer in enumerate(stem)}
    for number, (block, branches) in enumerate(BLOCKS.items()):
        for layer, name in _block_script_names(branches).items():
            names[f"{block}.{layer}"] = f"layers.{_counted('mixed', number)}.{name}"
    return names


def _counted(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _block_script_names(branches: Branches) -> dict[str, str]:
    names, towers = {}, 0
    sided = any(isinstance(step[0], tuple) for branch in branches for step in branch)
    for branch in branches:
        layers = [step for step in branch if not isinstance(step, str)]
        if len(branch) == 1:
            names |= {layer[0]: "conv" for layer in layers}
            continue
        tower, towers = _counted("tower", towers) + ("_" if sided else "."), towers + 1
        for i, layer in enumerate(layers):
            if isinstance(layer[0], tuple):
                names |= {side[0]: f"{tower}mixed_{_counted('conv', j)}" for j, side in enumerate(layer)}
            else:
                names[layer[0]] = tower + _counted("conv", i)
    return names


def _as_pth(weights: Weights) -> Weights:
    """Arrays of the TorchScript file under the other file's names; its batch norms have no scale."""
    found = {f"fc.{part}": weights[f"output.{part}"] for part in ("weight", "bias") if f"output.{part}" in weights}
    parts = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    for layer, script in script_names().items():
        for part, name in parts.items():
            if f"{script}.{part}" in weights:
                found[f"{layer}.{name}"] = weights[f"{script}.{part}"]
        if f"{script}.beta" in weights:
            found[f"{layer}.bn.weight"] = np.ones_like(weights[f"{script}.beta"])
    return found
