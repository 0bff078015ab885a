"""Flax Linen modules and nothing else: no loss, no config, no data."""

from genjax.networks.cnn import CNN, AlexNet
from genjax.networks.conv_vae import ConvVAE
from genjax.networks.dcgan import Discriminator, Generator
from genjax.networks.dit import DiT
from genjax.networks.jit import JiT
from genjax.networks.resnet import ResNet
from genjax.networks.unet import UNet

CLASSIFIERS = {"cnn": CNN, "alexnet": AlexNet, "resnet": ResNet}
GENERATORS = {"dcgan": Generator}
DISCRIMINATORS = {"dcgan": Discriminator}
AUTOENCODERS = {"conv_vae": ConvVAE}
DENOISERS = {"unet": UNet, "dit": DiT, "jit": JiT}
