"""Flax Linen modules and nothing else: no loss, no config, no data."""

from genjax.networks.cnn import CNN, AlexNet
from genjax.networks.conv_vae import ConvVAE
from genjax.networks.dcgan import Discriminator, Generator
from genjax.networks.resnet import ResNet

CLASSIFIERS = {"cnn": CNN, "alexnet": AlexNet, "resnet": ResNet}
GENERATORS = {"dcgan": Generator}
DISCRIMINATORS = {"dcgan": Discriminator}
AUTOENCODERS = {"conv_vae": ConvVAE}
