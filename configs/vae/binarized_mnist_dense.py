"""The variational autoencoder of one stochastic layer on MNIST with the fixed binarisation of Larochelle & Murray 2011.

python -m experiments.train --config=configs/vae/binarized_mnist_dense.py:accelerator=cpu --workdir=runs/binarized

Expected (seed 0): bound of 5,000 draws -90.29 nats on the 10,000 test images, ELBO -96.40, 15 of 50 latents active; 300
epochs in 35 min of one CPU core that others use, too. Published after 3,280 epochs: -88.71.
Paper: Burda et al. 2016, Importance weighted autoencoders, appendix D; the bits are those of Larochelle & Murray 2011.
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
