"""Beta-VAE on computed shapes of known factors, and how far each latent stands for one of them.

python -m experiments.train --config=configs/vae/shapes_beta_vae.py:accelerator=cpu --workdir=runs/shapes

Expected, on the combinations of factors held out, seeds 0 and 1; 4 min each on one CPU core that others use, too:

    beta                     4                1
    ELBO, nats        -46.2, -47.2     -38.5, -38.7
    MIG               0.06,  0.15      0.04,  0.04
    SAP               0.11,  0.24      0.04,  0.13
    disentanglement   0.49,  0.53      0.44,  0.44
    completeness      0.37,  0.43      0.26,  0.30
    modularity        0.73,  0.71      0.85,  0.79
    FactorVAE score   0.52,  0.64      0.62,  0.45

Two seeds are too few to tell the betas apart. In the traversals of beta 4 five of the ten latents do something: with
seed 0 two of them move the shape and three change its size or form. At 7 nats reconstructions keep position and size,
and round shapes off.
Papers: Higgins et al. 2017; for the scores see docs/evaluation.md.
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
