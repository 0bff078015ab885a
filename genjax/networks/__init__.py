"""Flax Linen modules and nothing else: no loss, no config, no data."""

from genjax.networks.cnn import CNN, AlexNet
from genjax.networks.conv_vae import ConvVAE
from genjax.networks.dcgan import Discriminator, Generator
from genjax.networks.dense_vae import DenseVAE
from genjax.networks.dit import DiT
from genjax.networks.efficientnet import EfficientNetLite0
from genjax.networks.inception import InceptionV3
from genjax.networks.jit import JiT
from genjax.networks.resnet import ResNet
from genjax.networks.unet import UNet

CLASSIFIERS = {"cnn": CNN, "alexnet": AlexNet, "resnet": ResNet}
GENERATORS = {"dcgan": Generator}
DISCRIMINATORS = {"dcgan": Discriminator}
AUTOENCODERS = {"conv_vae": ConvVAE, "dense_vae": DenseVAE}
DENOISERS = {"unet": UNet, "dit": DiT, "jit": JiT}
FEATURES = {"efficientnet_lite0": EfficientNetLite0, "inception_v3": InceptionV3}
"""Pretrained networks that judge images; no family trains them."""
