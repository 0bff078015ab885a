"""DCGAN on stacked MNIST, three digits as RGB: how many of the 1000 modes does it find?

python -m experiments.train --config=configs/gan/stacked_mnist_dcgan.py:accelerator=cpu --workdir=runs/stacked_mnist

Expected: not run in full yet.
Paper: Metz et al. 2017, Unrolled generative adversarial networks; Lin et al. 2018, PacGAN; Radford et al. 2016, DCGAN.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.stacked("mnist")
    config.total = "10 epochs"
    config.model = {
        "family": "gan",
        "generator": {"name": "dcgan", "width": 64},
        "discriminator": {"name": "dcgan", "width": 64, "dropout": 0.3},
        "conditional": False,
        "latent_dim": 100,
        "loss": "non_saturating",
        "discriminator_updates": 1,
        "ema_decay": 0.999,
    }
    config.optim = {"generator": adam(2e-4, b1=0.5), "discriminator": adam(2e-4, b1=0.5)}
    config.evaluators = {
        "eval": {"name": "mean", "every": "1 epochs", "limit": 2000},
        "modes": {"name": "modes", "every": "end", "classifier": "mnist", "num_samples": 26_000},
        **pictures("samples", "interpolations", every="1 epochs"),
    }
    return finish(config, options)
