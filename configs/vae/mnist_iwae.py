"""Importance-weighted autoencoder on dynamically binarised MNIST, with the paper's network of one stochastic layer.

python -m experiments.train --config=configs/vae/mnist_iwae.py:accelerator=cpu --workdir=runs/iwae

Expected (seed 0), bound of 5,000 draws on all 10,000 test images, in nats, on one CPU core that others use, too:

    model.num_draws        1          5         50
    total         300 epochs 150 epochs  80 epochs
    bound             -88.45     -87.75     -87.99
    time              33 min     13 min     40 min

Published, after 3,280 epochs: -86.76, -85.54, -84.78. With one draw `--config.accelerator.steps_per_call=50` is a third
faster.
Paper: Burda et al. 2016, Importance weighted autoencoders; one draw is Kingma & Welling 2014.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures
from configs.references import Reference

# log p(x) in nats by draws in training, of 5,000 draws in evaluation; 3,280 passes over the data.
_PUBLISHED = {1: -86.76, 5: -85.54, 50: -84.78}


def full(options):
    """The config before what acts on the whole of it."""
    config = base(options)
    config.data = datasets.tfds("mnist")
    config.total = "80 epochs"
    config.batch_size = 20
    config.model = {
        "family": "vae",
        "network": {"name": "dense_vae", "latent_dim": 50, "hidden": (200, 200)},
        "conditional": False,
        "likelihood": "bernoulli",
        "beta": 1.0,
        "kl_warmup_steps": 0,
        "num_draws": 50,  # 1 makes it a variational autoencoder
        "ema_decay": 0.999,
    }
    config.optim = adam(1e-3, eps=1e-4, schedule="cosine")
    config.evaluators = {
        "eval": {"name": "mean", "every": "10 epochs", "limit": 0},
        "bound": {"name": "importance_bound", "every": "end", "num_samples": 5000, "limit": 0},
        "latents": {"name": "active_units", "every": "end", "limit": 0},
        **pictures("samples", "reconstructions", every="end"),
    }
    return config


def get_config(arg=None):
    options = args.parse(arg)
    return finish(full(options), options)


def references(config):
    value = _PUBLISHED.get(config.model.num_draws)
    if value is None or config.evaluators.bound.num_samples != 5000:
        return ()
    return (Reference("bound/importance_bound_5000", value, "Burda et al. 2016, table 1", tolerance=0.3),)
