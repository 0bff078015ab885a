"""DCGAN on CIFAR-10.

python -m experiments.train --config=configs/gan/cifar10_dcgan.py:accelerator=gpu --workdir=runs/cifar10_dcgan

Expected: not run in full yet; meant for an accelerator.
Paper: Radford et al. 2016, DCGAN.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("cifar10", augment=("flip",))
    config.total = "100 epochs"
    config.model = {
        "family": "gan",
        "generator": {"name": "dcgan", "width": 64},
        "discriminator": {"name": "dcgan", "width": 64, "dropout": 0.3},
        "conditional": False,
        "latent_dim": 128,
        "loss": "non_saturating",
        "discriminator_updates": 1,
        "ema_decay": 0.999,
    }
    config.optim = {"generator": adam(2e-4, b1=0.5), "discriminator": adam(2e-4, b1=0.5)}
    config.evaluators = {
        "eval": {"name": "mean", "every": "5 epochs", "limit": 2000},
        **pictures("samples", "interpolations", every="5 epochs"),
    }
    return finish(config, options)
