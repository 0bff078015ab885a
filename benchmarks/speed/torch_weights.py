"""genjax's weights in the PyTorch networks, to show that both compute the same function.

See tests/test_benchmark_networks.py.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed import torch_networks, torch_unet
from benchmarks.speed.workload import GRID


def kernel(layer: nn.Module, weights: Mapping[str, np.ndarray], grid: str = "") -> Iterator[tuple[Any, np.ndarray]]:
    """Parameters of a convolution or dense layer with their values.

    Args:
      layer: of PyTorch.
      weights: "kernel" and "bias" of the Flax layer.
      grid: "in" or "out" where a dense layer's input or output is a 7x7 grid of channels in one row: Flax keeps the
        channels last in it, PyTorch first.
    """
    value = np.asarray(weights["kernel"])
    if isinstance(layer, nn.Conv2d):  # from a dense layer where it is pointwise
        value = value.reshape(*layer.kernel_size, *value.shape[-2:]).transpose(3, 2, 0, 1)
    elif isinstance(layer, nn.ConvTranspose2d):
        value = value[::-1, ::-1].transpose(2, 3, 0, 1)  # a gradient of a convolution: it meets the taps in reverse
    else:
        value = value.T
        if grid == "in":
            value = value.reshape(len(value), GRID, GRID, -1).transpose(0, 3, 1, 2).reshape(len(value), -1)
    bias = [np.asarray(weights["bias"])] if "bias" in weights else []
    if grid == "out":
        value, *bias = (
            v.reshape(GRID, GRID, -1, *v.shape[1:]).transpose(2, 0, 1, *range(3, v.ndim + 2)).reshape(v.shape)
            for v in (value, *bias)
        )
    yield layer.weight, value
    for v in bias:
        yield layer.bias, v


def norm(layer: nn.BatchNorm2d, weights: Mapping[str, Any], statistics: Mapping[str, Any]) -> Iterator[tuple]:
    yield layer.weight, weights["scale"]
    yield layer.bias, weights["bias"]
    yield layer.running_mean, statistics["mean"]
    yield layer.running_var, statistics["var"]


def unet(network: nn.Module, params: Mapping[str, Any]) -> Iterator[tuple[Any, np.ndarray]]:
    """Both have the same names, but for PyTorch's collection of blocks and Flax's table inside of "label"."""
    for path, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.GroupNorm | nn.Embedding):
            continue
        weights = functools.reduce(operator.getitem, path.removeprefix("blocks.").split("."), params)
        if isinstance(layer, nn.GroupNorm):
            yield layer.weight, weights["scale"]
            yield layer.bias, weights["bias"]
        elif isinstance(layer, nn.Embedding):
            yield layer.weight, weights["Embed_0"]["embedding"]
        else:
            yield from kernel(layer, weights)


def pairs(network: nn.Module, variables: Mapping[str, Any]) -> Iterator[tuple[Any, np.ndarray]]:
    """Every parameter of ``network`` with its value in the Flax ``variables`` of genjax's network of that name."""
    params = variables["params"]
    if isinstance(network, torch_unet.UNet):
        yield from unet(network, params)
        return
    if isinstance(network, torch_networks.VAE):
        for i in range(2):
            yield from kernel(network.down[i], params[f"down_{i}"])
            yield from kernel(network.up[i], params[f"up_{i}"])
        yield from kernel(network.to_latent, params["to_latent"], grid="in")
        yield from kernel(network.from_latent, params["from_latent"], grid="out")
        return
    generator = isinstance(network, torch_networks.Generator)
    yield from kernel(network.dense, params["Dense_0"], grid="out" if generator else "in")
    for i, layer in enumerate(network.ups if generator else network.convs):
        yield from kernel(layer, params[f"ConvTranspose_{i}" if generator else f"Conv_{i}"])
        if generator:
            name = f"BatchNorm_{i}"
            yield from norm(network.norms[i], params[name], variables["batch_stats"][name])


def copy_weights(network: nn.Module, variables: Mapping[str, Any]) -> None:
    with torch.no_grad():
        for parameter, value in pairs(network, variables):
            if tuple(parameter.shape) != value.shape:
                raise ValueError(f"{tuple(parameter.shape)} is not {value.shape}")
            parameter.copy_(torch.from_numpy(np.array(value)))


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def apply(network: nn.Module, *inputs: np.ndarray, method: str = "forward") -> np.ndarray:
    """What a method of the network gives in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return getattr(network, method)(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)).numpy()
