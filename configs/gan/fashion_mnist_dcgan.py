"""DCGAN on Fashion-MNIST.

python -m experiments.train --config=configs/gan/fashion_mnist_dcgan.py:accelerator=cpu --workdir=runs/dcgan

Expected (seed 0): frechet_distance 6.80 [6.64, 6.96], precision 0.79, recall 0.65 under fashion_mnist_10k; 15 min on
one CPU core.
Paper: Goodfellow et al. 2014, Generative adversarial nets; Radford et al. 2016, DCGAN.
"""

from configs import args, datasets
from configs.base import adam, base, distance, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("fashion_mnist")
    config.total = "12 epochs"
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
        **distance("fashion_mnist_2k", every="2 epochs"),
        **pictures("samples", "interpolations"),
    }
    return finish(config, options)
