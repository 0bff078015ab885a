"""Writes a trained model for use without this code: weights as safetensors, its sampler as a StableHLO program.

  python -m experiments.export --workdir=runs/vae --out=exported/vae

In --out: weights.safetensors (the averaged weights that evaluation uses), sampler.stablehlo (of a classifier
predict.stablehlo), manifest.json, which also is in the header of the weights, and run.py, an example that needs jax,
numpy, flatbuffers and safetensors. The program takes any number of images and runs on CPU, CUDA and TPU. Its format
is that of jax.export, which later versions of jax read for at least half a year; the weights outlive it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    from experiments.restore import Restored
    from genjax.train.export import Program

WORKDIR = flags.DEFINE_string("workdir", None, "Work folder of the run.")
OUT = flags.DEFINE_string("out", None, "Folder for the files; new or empty.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which checkpoint: latest, best or a step.")
EMA = flags.DEFINE_float("ema", None, "Relative length of the average of the weights, rebuilt from kept checkpoints.")
SET = flags.DEFINE_multi_string("set", [], "A setting of sampling and its value, as model.sampler.num_steps=4.")

_EXAMPLE = '''"""Calls the model in this folder: needs jax, numpy, flatbuffers and safetensors."""

import pathlib

import jax.export
import numpy as np
from safetensors.numpy import load_file

folder = pathlib.Path(__file__).parent
weights = load_file(folder / "weights.safetensors")
program = jax.export.deserialize(bytearray((folder / "{name}.stablehlo").read_bytes()))
{call}
'''
_CALLS = {
    "sampler": """count = 16
index = np.arange(count, dtype=np.int32)
images = program.call(weights, np.uint32(0), index, index % {classes})  # seed, which image, its class
np.savez(folder / "samples.npz", images=np.asarray(images))
print(images.shape, images.dtype)""",
    "predict": """images = np.zeros((1, {height}, {width}, {channels}), np.uint8)
print(program.call(weights, images))""",
}


def main() -> int:
    import importlib.util

    from experiments.restore import restore
    from experiments.staging import is_free, whole
    from genjax.types import UserError

    if not WORKDIR.value or not OUT.value:
        raise UserError("--workdir and --out are required; see --help")
    for package in ("flatbuffers", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"package {package} is missing; install genjax with the extra 'export'")
    out = Path(OUT.value)
    if not is_free(out):
        raise UserError(f"--out={OUT.value} is not an empty folder; accepted: a new one, or one without files")
    with whole(out) as folder:
        from genjax.train.export import export_program

        run = restore(WORKDIR.value, CHECKPOINT.value, "cpu", cli.settings_of(SET.value), EMA.value)
        program = export_program(run.plan.family, run.state)
        _write(folder, run, program)
    print(f"{sum(leaf.size for leaf in program.weights.values()):,} values: {out}/weights.safetensors")
    print(f"{program.name}: {out}/{program.name}.stablehlo; python {out}/run.py shows how to call it")
    return 0


def _write(folder: Path, run: Restored, program: Program) -> None:
    import json

    from safetensors.numpy import save

    from genjax.io.files import write_atomic, write_json
    from genjax.io.manifest import manifest
    from genjax.train.evaluation import weights_of
    from genjax.train.export import FORMAT

    spec = run.plan.train.spec
    about = {
        **manifest(FORMAT, run.plan.config),
        **program.manifest,
        "family": run.plan.family.name,
        "step": int(run.state.step),
        "weights": weights_of(run.state, run.ema),
        "sampling": dict(run.plan.family.sampling),
        "images": {"height": spec.height, "width": spec.width, "channels": spec.channels, "classes": spec.classes},
        "class_names": list(spec.class_names),
    }
    sizes = {"height": spec.height, "width": spec.width, "channels": spec.channels, "classes": max(spec.classes, 1)}
    call = _CALLS[program.name].format(**sizes)
    write_json(folder / "manifest.json", about)
    header = {"manifest": json.dumps(json.loads((folder / "manifest.json").read_text()))}
    write_atomic(folder / "weights.safetensors", save(program.weights, header))
    write_atomic(folder / f"{program.name}.stablehlo", bytes(program.serialized))
    write_atomic(folder / "run.py", _EXAMPLE.format(name=program.name, call=call).encode())


if __name__ == "__main__":
    cli.run(main, __doc__)
