"""What training exchanges per step on eight devices, and a model of 8, 64 and 512: ``python -m benchmarks.scaling``.

Each step is compiled for eight simulated devices and several meshes, and its exchanges are read off the program;
nothing runs. From the parameters and floating-point operations follows what bounds a step on larger machines
(``benchmarks.collectives``). Writes tables between the markers of --output and a figure beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
from pathlib import Path

from benchmarks.collectives import Machine, collectives, data_parallel, fully_sharded, totals

DEVICES = 8
MESHES = {"data 8": (1, 1), "fsdp 8": (8, 1), "data 2, fsdp 4": (4, 1), "data 4, tensor 2": (1, 2),
          "fsdp 4, tensor 2": (4, 2)}  # fsdp and tensor; the rest is data  # fmt: skip
CONFIGS = {  # with the shape of their images, for compiling needs no data: height, width, channels, classes
    "vae/mnist_conv": (28, 28, 1, 10),
    "gan/cifar10_dcgan": (32, 32, 3, 10),
    "diffusion/cifar10_edm": (32, 32, 3, 10),
    "diffusion/cifar10_dit": (32, 32, 3, 10),
}
MACHINES = (
    Machine("H100, 8 in a node, 400 Gbit/s each to other nodes", 989e12, 0.4, 8, 450e9, 50e9, 5e-6),
    Machine("H100, 8 in a node, 25 Gbit/s each to other nodes", 989e12, 0.4, 8, 450e9, 3e9, 2e-5),
)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A compiled step: the batch of all devices, its values, operations on all devices, exchanges by mesh."""

    batch: int
    parameters: int
    flops: float
    exchanges: dict[str, dict[str, tuple[int, float]]]


def measure(name: str) -> Measured:
    """Compiles a config's step for every mesh that can divide it."""
    import numpy as np

    from genjax import build, tree
    from genjax.data.augment import augment
    from genjax.train.sharding import device_mesh
    from genjax.train.steps import Trainer
    from genjax.types import ImageSpec, UserError

    config = build.to_plain(importlib.import_module(f"configs.{name.replace('/', '.')}").get_config("accelerator=cpu"))
    spec = ImageSpec(*CONFIGS[name])
    model = build.family(config, spec, total_steps=10**6)
    example = {"image": np.zeros((1, *spec.shape), np.uint8), "label": np.zeros(1, np.int32)}
    exchanges, parameters, flops = {}, 0, 0.0
    for mesh_name, (fsdp, tensor) in MESHES.items():
        trainer = Trainer(model, device_mesh(-1, fsdp, tensor), 50_000, augment(tuple(config["data"]["augment"])))
        try:
            program = trainer.compile_step(example)
        except UserError:
            continue  # nothing that this mesh could divide
        exchanges[mesh_name] = totals(collectives(program.as_text(), DEVICES))
        parameters = sum(tree.size(params) for params in trainer.abstract_state(example).params.values())
        flops = flops or trainer.flops
        print(f"{name} {mesh_name}: {exchanges[mesh_name]}", flush=True)
    return Measured(model.examples_per_step, parameters, flops, exchanges)


def tables(measured: dict[str, Measured]) -> str:
    """Markdown: exchanges on eight devices, then efficiencies by the model."""
    rows = [
        "| config | mesh | exchanges in a step (count: MB that each device sends) |",
        "|---|---|---|",
    ]
    for name, item in measured.items():
        for mesh, found in item.exchanges.items():
            words = ", ".join(f"{count} {kind}: {sent / 1e6:.2f}" for kind, (count, sent) in found.items()) or "none"
            rows.append(f"| {name} | {mesh} | {words} |")
    rows += [
        "",
        "| config | values | TFLOP in a step | all-reduce of the gradient by the model, MB |",
        "|---|---:|---:|---:|",
    ]
    for name, item in measured.items():
        sent = item.parameters * 4 * 2 * (DEVICES - 1) / DEVICES
        rows.append(f"| {name} | {item.parameters:,} | {item.flops / 1e12:.3f} | {sent / 1e6:.2f} |")
    for machine in MACHINES:
        rows += ["", f"{machine.name}: computation's share of a step, nothing overlapped / all of it.", ""]
        rows += ["| config | batch | how | 8 devices | 64 | 512 |", "|---|---|---|---:|---:|---:|"]
        for name, item in measured.items():
            for growing in (True, False):
                for words, model in (("data", data_parallel), ("fsdp", fully_sharded)):
                    cells = []
                    for count in (8, 64, 512):
                        flops = item.flops / DEVICES if growing else item.flops / count
                        step = model(machine, count, item.parameters, flops)
                        cells.append(f"{step.efficiency:.0%} / {step.overlapped:.0%}")
                    batch = f"{item.batch // DEVICES} a device" if growing else f"{item.batch} in all"
                    rows.append(f"| {name} | {batch} | {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def figure(measured: dict[str, Measured], path: Path) -> None:
    """Computation's share of a step against the number of devices, a panel for each machine."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(MACHINES), figsize=(11, 4), sharey=True, constrained_layout=True)
    for panel, machine in zip(panels, MACHINES, strict=True):
        for colour, (name, item) in enumerate(measured.items()):
            for style, growing in (("-", True), (":", False)):
                shares = [
                    data_parallel(machine, n, item.parameters, item.flops / (DEVICES if growing else n)).efficiency
                    for n in COUNTS
                ]
                panel.plot(COUNTS, shares, style, color=f"C{colour}", label=name if growing else None)
        panel.set_xscale("log", base=2)
        panel.set_xticks(COUNTS, [str(n) for n in COUNTS])
        panel.set_xlabel("devices")
        panel.set_title(machine.name, fontsize=9)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of the step that computes")
    panels[0].set_ylim(0, 1.03)
    panels[0].legend(title="solid: batch grows\ndotted: batch stays", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/scaling.md"), help="page with markers")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="some of the configs")
    given = parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = (
        f"{flags} --xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    measured = {name: measure(name) for name in given.configs.split(",")}
    begin, end = "<!-- scaling: begin -->", "<!-- scaling: end -->"
    page = given.output.read_text()
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{given.output} has no markers"
    given.output.write_text(f"{before}{begin}\n\n{tables(measured)}\n\n{end}{after}")
    figure(measured, given.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
