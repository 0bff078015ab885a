"""Class-conditional DCGAN on the embedded 8x8 digits: the demo, no download.

python -m experiments.train --config=configs/gan/digits_dcgan.py:accelerator=cpu --workdir=runs/digits_dcgan

Expected, seeds 0 to 2: frechet_distance 0.07 to 0.10 under digits_2k; 24 s of training on one CPU core.
Paper: Mirza & Osindero 2014; Radford et al. 2016.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures
from genjax.sweep import product, seeds, values, zipped


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.digits()
    config.total = "600 epochs"
    config.model = {
        "family": "gan",
        "generator": {"name": "dcgan", "width": 64},
        "discriminator": {"name": "dcgan", "width": 64, "dropout": 0.3},
        "conditional": True,
        "latent_dim": 32,
        "loss": "non_saturating",
        "discriminator_updates": 1,
        "ema_decay": 0.99,
    }
    config.optim = {"generator": adam(2e-4, b1=0.5), "discriminator": adam(2e-4, b1=0.5)}
    config.evaluators = {
        "eval": {"name": "mean", "every": "40 epochs", "limit": 2000},
        **pictures("samples", "interpolations", every="40 epochs"),
    }
    config.checkpoint.every = "50 epochs"
    config.log_every = "100 steps"
    return finish(config, options)


def sweep():
    """Both players' learning rates together, three seeds each."""
    rates = (1e-4, 2e-4, 4e-4)
    together = zipped(
        values("optim.generator.learning_rate", *rates), values("optim.discriminator.learning_rate", *rates)
    )
    return product(together, seeds(3))
