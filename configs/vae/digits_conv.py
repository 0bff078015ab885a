"""Class-conditional VAE on the embedded 8x8 digits, no download.

python -m experiments.train --config=configs/vae/digits_conv.py:accelerator=cpu --workdir=runs/digits_conv

Expected, seeds 0 to 2: test ELBO -20.31 to -20.77 nats, bound with 100 draws -19.93 to -20.38, frechet_distance 0.27 to
0.29 under digits_2k; 6 s of training on one CPU core.
Paper: Kingma & Welling 2014; Sohn et al. 2015.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures
from genjax.sweep import Range, Search, product, seeds, values


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.digits()
    config.total = "150 epochs"
    config.log_every = "100 steps"
    config.model = {
        "family": "vae",
        "network": {"name": "conv_vae", "latent_dim": 16, "width": 64, "hidden": 128},
        "conditional": True,
        "likelihood": "bernoulli",
        "beta": 1.0,
        "kl_warmup_steps": 0,
        "ema_decay": 0.99,
    }
    config.optim = adam(2e-3, schedule="cosine")
    config.evaluators = {
        "eval": {"name": "mean", "every": "10 epochs", "limit": 0},
        "bound": {"name": "importance_bound", "every": "end", "num_samples": 100, "limit": 0},
        **pictures("samples", "reconstructions", "interpolations", every="10 epochs"),
    }
    config.checkpoint.best = "eval/elbo"
    config.checkpoint.every = "10 epochs"
    return finish(config, options)


def sweep():
    """Learning rates around the config's, three seeds each."""
    return product(values("optim.learning_rate", 5e-4, 1e-3, 2e-3, 4e-3), seeds(3))


def sweep_search():
    """Learning rate and sizes by a Bayesian search, which stops the worse two of three runs at each rung."""
    space = {
        "optim.learning_rate": Range(2e-4, 2e-2, "log"),
        "model.network.latent_dim": Range(4, 32, "log", integer=True),
        "model.network.width": Range(16, 64, "log", integer=True),
    }
    return Search(space, metric="eval/elbo", trials=20, pruner="asha", first_rung=2)
