"""Convolutional VAE on dynamically binarised MNIST.

python -m experiments.train --config=configs/vae/mnist_conv.py:accelerator=cpu --workdir=runs/mnist_conv

Expected: test ELBO -92.03 nats and bound with 500 draws -86.83, both on all 10,000 images (seed 0); 74 min on one CPU
core, and 9 min on two for the bound.
Paper: Kingma & Welling 2014; the bound with 500 draws is Burda et al. 2016.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("mnist")
    config.total = "90 epochs"
    config.batch_size = 64
    config.model = {
        "family": "vae",
        "network": {"name": "conv_vae", "latent_dim": 100, "width": 64, "hidden": 0},
        "conditional": False,
        "likelihood": "bernoulli",
        "beta": 1.0,
        "kl_warmup_steps": 0,
        "ema_decay": 0.999,
    }
    config.optim = adam(2e-3, schedule="cosine", warmup_steps=500)
    config.evaluators = {
        "eval": {"name": "mean", "every": "5 epochs", "limit": 0},
        "bound": {"name": "importance_bound", "every": "end", "num_samples": 500, "limit": 0},
        **pictures("samples", "reconstructions", "interpolations", every="30 epochs"),
    }
    config.checkpoint.best = "eval/elbo"
    return finish(config, options)
