"""The variational autoencoder of one stochastic layer on MNIST with the fixed binarisation of Larochelle & Murray 2011.

python -m experiments.train --config=configs/vae/binarized_mnist_dense.py:accelerator=cpu --workdir=runs/binarized
"""

from configs import args, datasets
from configs.base import finish
from configs.references import Reference
from configs.vae import mnist_iwae

_PUBLISHED = {1: -88.71, 5: -87.63, 50: -87.10}


def get_config(arg=None):
    options = args.parse(arg)
    config = mnist_iwae.full(options)
    # The published bits: a split of 50,000, 10,000 for validation, and MNIST's test images.
    config.data = datasets.tfds("binarized_mnist")
    config.model.num_draws = 1
    config.total = "300 epochs"
    return finish(config, options)


def references(config):
    value = _PUBLISHED.get(config.model.num_draws)
    if value is None or config.evaluators.bound.num_samples != 5000:
        return ()
    return (Reference("bound/importance_bound_5000", value, "Burda et al. 2016, appendix D", tolerance=0.3),)
