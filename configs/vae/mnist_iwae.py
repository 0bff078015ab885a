"""Importance-weighted autoencoder on dynamically binarised MNIST, with the paper's network of one stochastic layer.

python -m experiments.train --config=configs/vae/mnist_iwae.py:accelerator=cpu --workdir=runs/iwae
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("mnist")
    config.total = "100 epochs"
    config.batch_size = 20
    config.model = {
        "family": "vae",
        "network": {"name": "dense_vae", "latent_dim": 50, "hidden": (200, 200)},
        "conditional": False,
        "likelihood": "bernoulli",
        "beta": 1.0,
        "kl_warmup_steps": 0,
        "num_draws": 50,  # 1 is the variational autoencoder
        "ema_decay": 0.999,
    }
    config.optim = adam(1e-3, eps=1e-4, schedule="cosine")
    config.evaluators = {
        "eval": {"name": "mean", "every": "10 epochs", "limit": 0},
        "bound": {"name": "importance_bound", "every": "end", "num_samples": 5000, "limit": 0},
        **pictures("samples", "reconstructions", every="end"),
    }
    return finish(config, options)
