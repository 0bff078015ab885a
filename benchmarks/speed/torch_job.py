"""PyTorch, eager or compiled: resident data, a batch gathered by random indices, fused Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed import workload
from benchmarks.speed.torch_networks import CNN, VAE, Discriminator, Generator
from benchmarks.speed.torch_unet import UNet
from benchmarks.speed.worker import Job, lazy
from benchmarks.speed.workload import CHANNELS, CLASSES, EVALUATIONS, LATENT, SIZE, T_MIN, Settings

Loss = Callable[..., Tensor]
Compile = Callable[[Callable], Callable]


def to_signed(image: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return image.float() / 127.5 - 1.0


class Training:
    """What all have in common: the networks, their optimizers and an update."""

    def __init__(self, networks: dict[str, nn.Module], settings: Settings, device: torch.device):
        last = settings.options["layout"] == "channels_last"
        layout = torch.channels_last if last else torch.contiguous_format
        self.networks = {name: n.to(device, memory_format=layout) for name, n in networks.items()}
        betas = (workload.GAN_B1 if settings.network == "gan" else 0.9, 0.999)
        options = {"lr": workload.RATE[settings.network], "betas": betas, "eps": workload.EPSILON, "fused": True}
        self.optimizers = {name: torch.optim.Adam(n.parameters(), **options) for name, n in self.networks.items()}
        self.device = device

    def update(self, name: str, loss: Loss, *inputs: Tensor) -> None:
        """One update of the network ``name``; the others get no gradients."""
        for other, network in self.networks.items():
            network.requires_grad_(other == name)
        self.optimizers[name].zero_grad(set_to_none=True)
        loss(*inputs).backward()
        self.optimizers[name].step()

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, LATENT, device=self.device)

    def training_mode(self, on: bool) -> None:
        for network in self.networks.values():
            network.train(on)


class Classifier(Training):
    def __init__(self, settings: Settings, device: torch.device, compiled: Compile):
        super().__init__({"cnn": CNN()}, settings, device)
        network = self.networks["cnn"]
        self.loss = compiled(lambda image, label: F.cross_entropy(network(to_signed(image)), label))

    def step(self, image: Tensor, label: Tensor) -> None:
        self.update("cnn", self.loss, image, label)


class Adversaries(Training):
    def __init__(self, settings: Settings, device: torch.device, compiled: Compile):
        super().__init__({"generator": Generator(), "discriminator": Discriminator()}, settings, device)
        generator, discriminator = self.networks["generator"], self.networks["discriminator"]

        def discriminator_loss(image: Tensor, z: Tensor) -> Tensor:
            with torch.no_grad():
                fake = generator(z)
            return (F.softplus(-discriminator(to_signed(image))) + F.softplus(discriminator(fake))).mean()

        self.discriminator_loss = compiled(discriminator_loss)
        self.generator_loss = compiled(lambda z: F.softplus(-discriminator(generator(z))).mean())
        self.draw = compiled(lambda z: 0.5 * (generator(z) + 1.0))

    def step(self, image: Tensor, label: Tensor) -> None:
        self.update("discriminator", self.discriminator_loss, image, self.noise(len(image)))
        self.update("generator", self.generator_loss, self.noise(len(image)))


class Autoencoder(Training):
    def __init__(self, settings: Settings, device: torch.device, compiled: Compile):
        super().__init__({"vae": VAE()}, settings, device)
        network = self.networks["vae"]

        def loss(image: Tensor) -> Tensor:
            x = (torch.rand(image.shape, device=device) * 255.0 < image).float()
            mean, logvar = network.encode(2.0 * x - 1.0)
            z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            error = F.binary_cross_entropy_with_logits(network.decode(z), x, reduction="sum")
            kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum()
            return (error + kl) / len(image)

        self.loss = compiled(loss)
        self.draw = compiled(lambda z: torch.sigmoid(network.decode(z)))

    def step(self, image: Tensor, label: Tensor) -> None:
        self.update("vae", self.loss, image)


class FlowMatching(Training):
    """Conditional flow matching, and Euler's method by the averaged weights."""

    def __init__(self, settings: Settings, device: torch.device, compiled: Compile):
        super().__init__({"unet": UNet()}, settings, device)
        network = self.networks["unet"]
        self.average, self.steps = copy.deepcopy(network).requires_grad_(False), 0
        average = self.average

        def loss(image: Tensor, label: Tensor) -> Tensor:
            x0, count = to_signed(image), len(image)
            eps = torch.randn_like(x0)
            t = torch.sigmoid(torch.randn(count, device=device)).clamp(min=T_MIN)
            label = torch.where(torch.rand(count, device=device) < workload.LABEL_DROPOUT, CLASSES, label)
            at = t[:, None, None, None]
            return F.mse_loss(network((1 - at) * x0 + at * eps, t, label), eps - x0)

        def euler(x: Tensor, t: Tensor, t_next: Tensor, label: Tensor) -> Tensor:
            return x + (t_next - t) * average(x, t.expand(len(x)), label)

        self.loss, self.euler = compiled(loss), compiled(euler)
        spaced = torch.linspace(1.0, 1.0 / EVALUATIONS["unet"], EVALUATIONS["unet"], device=device)
        self.levels = torch.cat([spaced, torch.zeros(1, device=device)])

    def step(self, image: Tensor, label: Tensor) -> None:
        self.update("unet", self.loss, image, label)
        self.steps += 1
        with torch.no_grad():
            parameters = list(self.networks["unet"].parameters())
            torch._foreach_lerp_(list(self.average.parameters()), parameters, workload.average_weight(self.steps))

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, CHANNELS, SIZE, SIZE, device=self.device)

    def draw(self, x: Tensor) -> Tensor:
        """Images of class 0 in [0, 1], from noise."""
        label = torch.zeros(len(x), dtype=torch.long, device=self.device)
        for i in range(len(self.levels) - 1):
            x = self.euler(x, self.levels[i], self.levels[i + 1], label)
        return (0.5 * (x + 1.0)).clamp(0.0, 1.0)


TRAININGS = {"cnn": Classifier, "gan": Adversaries, "vae": Autoencoder, "unet": FlowMatching}


def matrix_product(size: int, device: torch.device, wait: Callable[[], None]) -> Callable[[int], None]:
    """A task of ``count`` products of two float32 matrices ``[size, size]``."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))

    def run(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b)
        wait()

    return run


def tasks_of(settings: Settings, device: torch.device, wait: Callable[[], None]) -> dict[str, Callable[[int], None]]:
    mode = settings.options.get("compile")
    compiled: Compile = (lambda f: torch.compile(f, mode=mode)) if mode else (lambda f: f)
    training = TRAININGS[settings.network](settings, device, compiled)
    images, labels = (torch.from_numpy(array).to(device) for array in workload.examples(settings.examples))
    images, labels = images.permute(0, 3, 1, 2).contiguous(), labels.long()

    def train(count: int) -> None:
        training.training_mode(True)
        for _ in range(count):
            chosen = torch.randint(settings.examples, (settings.batch,), device=device)
            training.step(images[chosen], labels[chosen])
        wait()

    @torch.no_grad()
    def sample(count: int) -> None:
        training.training_mode(False)
        for _ in range(count):
            training.draw(training.noise(workload.SAMPLES[settings.network]))
        wait()

    tasks = {"train": train, "matmul": lazy(lambda: matrix_product(workload.MATRIX[settings.device], device, wait))}
    return tasks | ({"sample": sample} if hasattr(training, "draw") else {})


def build(settings: Settings) -> Job:
    versions = {"torch": torch.__version__}
    if settings.device == "cpu":
        torch.set_num_threads(settings.threads)
        return Job(tasks_of(settings, torch.device("cpu"), lambda: None), versions)
    # jax computes float32 products in TensorFloat-32 on a GPU; so may PyTorch.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    versions |= {"GPU": torch.cuda.get_device_name()}
    tasks = tasks_of(settings, torch.device("cuda"), torch.cuda.synchronize)
    return Job(tasks, versions, peak_bytes=torch.cuda.max_memory_allocated)
