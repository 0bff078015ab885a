"""Beta-VAE on computed shapes of known factors, and how far each latent stands for one of them.

python -m experiments.train --config=configs/vae/shapes_beta_vae.py:accelerator=cpu --workdir=runs/shapes
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.shapes()
    config.total = "10 epochs"
    config.batch_size = 128
    config.model = {
        "family": "vae",
        "network": {"name": "conv_vae", "latent_dim": 10, "width": 16, "hidden": 128},
        "conditional": False,
        "likelihood": "bernoulli",
        "beta": 4.0,  # 1 is the variational autoencoder
        "kl_warmup_steps": 0,
        "num_draws": 1,
        "ema_decay": 0.999,
    }
    config.optim = adam(1e-3, schedule="cosine")
    config.evaluators = {
        "eval": {"name": "mean", "every": "1 epochs", "limit": 0},
        "disentanglement": {
            "name": "disentanglement",
            "every": "end",
            "examples": 10_000,
            "draws": 5,
            "bins": 20,
            "alpha": 0.02,
            "train_votes": 10_000,
            "test_votes": 5_000,
        },
        **pictures("samples", "reconstructions", "traversals", every="end"),
    }
    return finish(config, options)
