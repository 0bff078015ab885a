"""Class-conditional DCGAN (cGAN) on MNIST.

python -m experiments.train --config=configs/gan/mnist_cdcgan.py:accelerator=cpu --workdir=runs/mnist_cdcgan

Expected (seed 0): frechet_distance 2.99 [2.91, 3.07], precision 0.90, recall 0.008, coverage 0.13 under mnist_10k;
18 min on one CPU core. Within a class the digits are nearly one and the same, which recall and coverage show: the
generator has collapsed.
Paper: Mirza & Osindero 2014, Conditional generative adversarial nets; Radford et al. 2016, DCGAN.
"""

from configs import args, datasets
from configs.base import adam, base, distance, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("mnist")
    config.total = "12 epochs"
    config.model = {
        "family": "gan",
        "generator": {"name": "dcgan", "width": 64},
        "discriminator": {"name": "dcgan", "width": 64, "dropout": 0.3},
        "conditional": True,
        "latent_dim": 100,
        "loss": "non_saturating",
        "discriminator_updates": 1,
        "ema_decay": 0.999,
    }
    config.optim = {"generator": adam(2e-4, b1=0.5), "discriminator": adam(2e-4, b1=0.5)}
    config.evaluators = {
        "eval": {"name": "mean", "every": "1 epochs", "limit": 2000},
        **distance("mnist_2k", every="2 epochs"),
        **pictures("samples", "interpolations", every="1 epochs"),
    }
    return finish(config, options)
