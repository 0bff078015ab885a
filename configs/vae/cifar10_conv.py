"""Convolutional VAE with a discretised-logistic likelihood on CIFAR-10.

python -m experiments.train --config=configs/vae/cifar10_conv.py:accelerator=gpu --workdir=runs/cifar10_conv

Expected: not run in full yet; meant for an accelerator.
Paper: Kingma & Welling 2014; Kingma et al. 2016 (likelihood).
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("cifar10")
    config.total = "60 epochs"
    config.model = {
        "family": "vae",
        "network": {"name": "conv_vae", "latent_dim": 128, "width": 64, "hidden": 0},
        "conditional": False,
        "likelihood": "discretized_logistic",
        "beta": 1.0,
        "kl_warmup_steps": 2000,
        "ema_decay": 0.999,
    }
    config.optim = adam(1e-3, schedule="cosine", clip_norm=100.0)
    config.evaluators = {
        "eval": {"name": "mean", "every": "1 epochs", "limit": 0},
        "bound": {"name": "importance_bound", "every": "end", "num_samples": 100, "limit": 0},
        **pictures("samples", "reconstructions", "interpolations", every="5 epochs"),
    }
    config.checkpoint.best = "eval/elbo"
    return finish(config, options)
