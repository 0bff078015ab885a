"""Class-conditional VAE with a Gaussian likelihood on Fashion-MNIST.

python -m experiments.train --config=configs/vae/fashion_mnist_conditional.py:accelerator=cpu --workdir=runs/conditional

Expected: not run in full yet.
Paper: Kingma & Welling 2014; Sohn et al. 2015.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("fashion_mnist")
    config.total = "20 epochs"
    config.model = {
        "family": "vae",
        "network": {"name": "conv_vae", "latent_dim": 100, "width": 32, "hidden": 0},
        "conditional": True,
        "likelihood": "gaussian",
        "beta": 1.0,
        "kl_warmup_steps": 1000,
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
