"""Convolutional VAE on dynamically binarised Fashion-MNIST.

python -m experiments.train --config=configs/vae/fashion_mnist_conv.py:accelerator=cpu --workdir=runs/conv

Expected (seed 0): test ELBO -241.2 nats, bound with 500 draws -236.0; frechet_distance 9.87 [9.64, 10.10] under
fashion_mnist_10k, of means of p(x|z), which are blurred; 4 min on one CPU core, and 4 for the bound.
Paper: Kingma & Welling 2014.
"""

from configs import args, datasets
from configs.base import adam, base, distance, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("fashion_mnist")
    config.total = "20 epochs"
    config.model = {
        "family": "vae",
        "network": {"name": "conv_vae", "latent_dim": 100, "width": 32, "hidden": 0},
        "conditional": False,
        "likelihood": "bernoulli",
        "beta": 1.0,
        "kl_warmup_steps": 0,
        "ema_decay": 0.999,
    }
    config.optim = adam(1e-3, schedule="cosine")
    config.evaluators = {
        "eval": {"name": "mean", "every": "1 epochs", "limit": 0},
        "bound": {"name": "importance_bound", "every": "end", "num_samples": 500, "limit": 0},
        **distance("fashion_mnist_2k", every="5 epochs"),
        **pictures("samples", "reconstructions", "interpolations", every="5 epochs"),
    }
    config.checkpoint.best = "eval/elbo"
    return finish(config, options)
