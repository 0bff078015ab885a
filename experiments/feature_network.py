"""Makes a feature network of a trained classifier, for ``genjax/evaluators/shipped``.

  python -m experiments.feature_network --workdir=runs/resnet --name=fashion_mnist

Writes <name>.npz to --out (the evaluation weights in half precision, the network's config, the accuracy that is left)
and prints the line for ``SHIPPED`` in ``genjax/evaluators/features.py``.
"""

from __future__ import annotations

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Work folder of the classifier.")
NAME = flags.DEFINE_string("name", None, "Of the network, that of its data set.")
OUT = flags.DEFINE_string("out", "genjax/evaluators/shipped", "Folder for the file.")


def main() -> int:
    import hashlib
    from pathlib import Path

    import jax
    import numpy as np

    from experiments.restore import restore
    from genjax.evaluators.features import pack, read
    from genjax.io.files import write_atomic
    from genjax.train.evaluation import context_of
    from genjax.types import UserError

    if not WORKDIR.value or not NAME.value:
        raise UserError("--workdir and --name are required; see --help")
    run = restore(WORKDIR.value, "latest", "auto")
    if run.plan.family.name != "classifier":
        raise UserError(f"--workdir {WORKDIR.value} is a {run.plan.family.name}; accepted: a classifier")
    (network,) = run.state.params
    spec, test = run.plan.train.spec, run.plan.test
    variables = jax.tree.map(np.asarray, dict(run.state.averaged(network)))
    about = {
        "network": run.plan.config["model"]["network"],
        "shape": spec.shape,
        "class_names": spec.class_names or [str(i) for i in range(spec.classes)],
        # Where the images lay when it was trained says nothing of what it is.
        "data": {key: value for key, value in run.plan.train.provenance.items() if key != "where"},
        "config": run.plan.config,
        "step": int(run.state.step),
        "accuracy": None,
    }
    batch = test.gather(np.arange(len(test)))
    compiled = context_of(run.plan, run.functions, run.state, run.mesh).compiled
    _, logits = read(NAME.value, pack(variables, about)).of(batch["image"], compiled)
    about["accuracy"] = round(float(np.mean(logits.argmax(-1) == batch["label"])), 4)
    data = pack(variables, about)
    write_atomic(Path(OUT.value) / f"{NAME.value}.npz", data)
    print(f"{len(data) / 1e6:.2f} MB, accuracy {about['accuracy']:.2%} on {len(test)} test images")
    print(f'    "{NAME.value}": "{hashlib.sha256(data).hexdigest()}",')
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
