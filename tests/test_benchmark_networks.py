"""The speed benchmark has the same networks everywhere: their sizes, their arithmetic, their results."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.speed import frameworks, genjax_job, worker, workload
from benchmarks.speed.workload import NETWORKS, Settings
from configs.accelerators import ACCELERATORS
from genjax import rng
from genjax.families.averaging import power_averages
from genjax.networks import CNN, ConvVAE, Discriminator, Generator, UNet

SHAPE = (28, 28, 1)


# What is computed


def unet():
    """genjax's network in the module of its family."""
    return UNet(SHAPE, 10, width=48, multipliers=(1, 2), blocks=2, attention=(7,), adaptive_scale=True, patch=2)


def test_flops_are_those_of_a_hand_count():
    conv1, conv2, conv3, dense = 28 * 28 * 9 * 32, 14 * 14 * 9 * 32 * 64, 7 * 7 * 9 * 64 * 128, 7 * 7 * 128 * 10
    assert (conv1, conv2, conv3, dense) == workload.CNN
    # Twice for the forward pass, the weights' and the inputs' gradient each; the images need none.
    assert workload.training_flops("cnn", 2) == 2 * (2 * conv1 + 6 * (conv2 + conv3 + dense) + 2 * conv1)
    d1, d2, logit = 14 * 14 * 16 * 64, 7 * 7 * 16 * 64 * 128, 7 * 7 * 128
    g1, g2, g3 = 100 * 7 * 7 * 128, 7 * 7 * 16 * 128 * 64, 14 * 14 * 16 * 64
    first = (g1 + g2 + g3) + 2 * (2 * d1 + 3 * (d2 + logit))
    second = (2 * g1 + 3 * (g2 + g3)) + 2 * (d1 + d2 + logit)
    assert workload.training_flops("gan", 1) == 2 * (first + second)


def test_flops_of_the_unet_are_those_of_its_kernels():
    """Every kernel's products once for each pixel of its grid, and attention's products of pairs in four blocks."""
    inputs = np.zeros((1, *SHAPE), np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.int32)
    params = jax.eval_shape(functools.partial(unet().init, train=False), jax.random.key(0), *inputs)
    counted = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["params"]):
        *names, kind = (entry.key for entry in path)
        if kind == "kernel":
            fine = names[0] in ("stem", "head") or "_0_" in names[0]
            side = 1 if names[-1].startswith("emb") else 14 if fine and names != ["decoder_0_up", "skip"] else 7
            counted += side**2 * leaf.size
    assert sum(workload.UNET) == counted + 4 * 2 * 49**2 * 96
    assert workload.UNET[0] == 14 * 14 * 9 * 4 * 48
    assert workload.training_flops("unet", 3) == 2 * 3 * (3 * sum(workload.UNET) - workload.UNET[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_flops_agree_with_a_count_by_xla(network):
    """Of plain convolutions: the lowered step, before XLA rewrites it. Adam and normalisation are the rest.

    XLA does not count products with the padding, which are a fifth of a 3x3 convolution's on a grid of 7; nor does
    genjax's U-Net multiply all of a doubled grid's repeated pixels.
    """
    batch = 32
    family = genjax_job.family(network, batch)
    data = {"image": np.zeros((1, batch, *SHAPE), np.uint8), "label": np.zeros((1, batch), np.int32)}
    key = jax.random.key(0)
    state = jax.eval_shape(family.init, key, jax.tree.map(lambda x: x[0], data))
    counted = jax.jit(family.train_step).lower(state, data, key).cost_analysis()["flops"]
    assert (0.8 if network == "unet" else 0.85) < counted / workload.training_flops(network, batch) < 1.3


def test_settings_are_those_of_the_configs():
    from configs.classifier.fashion_mnist_cnn import get_config as cnn
    from configs.diffusion.fashion_mnist_flow import get_config as flow
    from configs.gan.fashion_mnist_dcgan import get_config as gan
    from configs.vae.fashion_mnist_conv import get_config as vae

    assert {d: ACCELERATORS[d]["steps_per_call"] for d in ("cpu", "gpu")} == frameworks.STEPS_PER_CALL
    network = cnn("accelerator=cpu").model.network
    assert (network.features, network.strides) == (workload.CNN_FEATURES, workload.CNN_STRIDES)
    model, optim = gan("accelerator=cpu").model, gan("accelerator=cpu").optim
    assert model.generator.width == model.discriminator.width == workload.GAN_WIDTH
    assert (model.discriminator.dropout, model.latent_dim) == (workload.DROPOUT, workload.LATENT)
    for player in (optim.generator, optim.discriminator):
        assert (player.learning_rate, player.b1) == (workload.RATE["gan"], workload.GAN_B1)
    network = vae("accelerator=cpu").model.network
    assert (network.latent_dim, network.width, network.hidden) == (workload.LATENT, workload.VAE_WIDTH, 0)
    model = flow("accelerator=cpu").model
    # The config's network is smaller, and so takes less time to train than to measure.
    assert model.network.name == "unet"
    for name in ("multipliers", "attention", "adaptive_scale", "patch"):
        assert model.network[name] == getattr(unet(), name)
    parts = [model[name].name for name in ("objective", "path", "prediction", "levels", "weighting", "grid")]
    assert parts == ["denoising", "linear", "velocity", "logit_normal", "velocity", "even"]
    assert (model.conditional, model.label_dropout) == (True, workload.LABEL_DROPOUT)
    assert workload.AVERAGE_LENGTH in model.ema_lengths
    for name, config in (("cnn", cnn), ("vae", vae)):
        assert config("accelerator=cpu").optim.learning_rate == workload.RATE[name]


@pytest.mark.parametrize("steps", [1, 2])
def test_genjax_trains_the_steps_that_are_asked_for(steps):
    job = genjax_job.build(Settings("cnn", "cpu", 4, 64, 1, {"steps_per_call": steps}))
    job.tasks["train"](4)
    state = job.tasks["train"].__self__.state
    assert int(state.step) == 4 and job.unit == steps
    assert set(job.tasks) == {"train", "matmul"} and set(job.versions) == {"jax", "flax", "optax"}
    assert job.facts()["flops"] > 0
    assert worker.answer(job, {"run": "facts"})["peak_bytes"] > 2**20


def test_the_unet_samples_and_averages_as_the_workload_says():
    assert genjax_job.family("unet", 4).evaluations == workload.EVALUATIONS["unet"]
    (average,) = power_averages("denoiser", (workload.AVERAGE_LENGTH,)).values()
    for step in (1, 2, 10, 1000):
        assert average.weight(jnp.asarray(step - 1)) == pytest.approx(workload.average_weight(step), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["gan", "vae", "unet"])
def test_genjax_samples(network):
    job = genjax_job.build(Settings(network, "cpu", 4, 64, 1, {"steps_per_call": 1}))
    assert worker.answer(job, {"run": "sample", "count": 1})["seconds"] > 0


# The networks of PyTorch, where it is installed


@pytest.fixture
def torch_weights():
    return pytest.importorskip("benchmarks.speed.torch_weights", exc_type=ImportError)


def variables_of(module, *inputs, **options):
    """Initialised, then moved away from what is special about it: zero biases, unit variances."""
    variables = module.init(jax.random.key(0), *inputs, **options)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.05 * jnp.abs(jax.random.normal(k, x.shape)) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def mirrored(variables):
    """The CNN for mirrored images: its 3x3 kernels of stride 2 pad on the other side then."""
    params = dict(variables["params"])
    for name in ("Conv_0", "Conv_1", "Conv_2"):
        params[name] = {**params[name], "kernel": params[name]["kernel"][::-1, ::-1]}
    dense = params["Dense_0"]["kernel"].reshape(7, 7, 128, -1)[::-1, ::-1]
    params["Dense_0"] = {**params["Dense_0"], "kernel": dense.reshape(7 * 7 * 128, -1)}
    return {"params": params}


def check(torch_weights, network, variables, inputs, expected, method="forward"):
    count = sum(p.size for p in jax.tree.leaves(variables["params"]))
    assert torch_weights.count_parameters(network) == count
    torch_weights.copy_weights(network, variables)
    actual = torch_weights.apply(network, *inputs, method=method)
    assert np.std(np.asarray(expected)) > 1e-3
    np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def channels_first(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
LATENTS = np.random.default_rng(1).standard_normal((3, workload.LATENT), np.float32)


def test_pytorch_has_the_cnn(torch_weights):
    module = CNN(workload.CLASSES, workload.CNN_FEATURES, workload.CNN_STRIDES)
    variables = variables_of(module, IMAGES, train=False)
    x = channels_first(IMAGES[:, ::-1, ::-1])
    logits = module.apply(variables, IMAGES, train=False)
    check(torch_weights, torch_weights.torch_networks.CNN(), mirrored(variables), [x], logits)


def test_pytorch_has_the_generator(torch_weights):
    module = Generator(SHAPE, width=workload.GAN_WIDTH)
    variables = variables_of(module, LATENTS, None, train=False)
    images = module.apply(variables, LATENTS, None, train=False)
    check(torch_weights, torch_weights.torch_networks.Generator(), variables, [LATENTS], channels_first(images))


def test_pytorch_has_the_discriminator(torch_weights):
    module = Discriminator(SHAPE, width=workload.GAN_WIDTH, dropout=workload.DROPOUT)
    variables = variables_of(module, IMAGES, None, train=False)
    logits = module.apply(variables, IMAGES, None, train=False)
    check(torch_weights, torch_weights.torch_networks.Discriminator(), variables, [channels_first(IMAGES)], logits)


def test_pytorch_has_the_decoder(torch_weights):
    module = ConvVAE(SHAPE, latent_dim=workload.LATENT, width=workload.VAE_WIDTH)
    variables = variables_of(module, IMAGES, None)
    logits = module.apply(variables, LATENTS, None, method="decode")[..., 0]
    check(torch_weights, torch_weights.torch_networks.VAE(), variables, [LATENTS], channels_first(logits), "decode")


TIMES, CLASS = np.asarray([0.001, 0.4, 1.0], np.float32), np.asarray([0, 9, 10], np.int32)


def unet_variables():
    """Random in every leaf, around what the network starts with."""
    init = jax.jit(functools.partial(unet().init, train=False))
    variables = init(jax.random.key(0), IMAGES, TIMES[:, None], CLASS)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.02 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def test_pytorch_has_the_unet(torch_weights):
    variables = unet_variables()
    apply = jax.jit(functools.partial(unet().apply, train=False))
    velocity = apply(variables, IMAGES, 1000 * TIMES[:, None], CLASS)
    inputs = [channels_first(IMAGES), TIMES, CLASS]
    check(torch_weights, torch_weights.torch_unet.UNet(), variables, inputs, channels_first(velocity))


@pytest.fixture
def torch_training():
    """Flow matching in PyTorch on batches of 4."""
    torch_job = pytest.importorskip("benchmarks.speed.torch_job", exc_type=ImportError)
    settings = Settings("unet", "cpu", 4, 64, 1, {"layout": "channels_last"})
    return torch_job.FlowMatching(settings, torch_job.torch.device("cpu"), lambda function: function)


def test_pytorch_draws_the_images_that_genjax_draws(torch_weights, torch_training):
    family, variables = genjax_job.family("unet", 4), unet_variables()
    keys = rng.example_keys(jax.random.key(2), jnp.arange(2))
    noise = jax.vmap(lambda key: jax.random.normal(rng.stream(key, "noise"), SHAPE))(keys)
    state = jax.eval_shape(family.init, keys[0], {"image": IMAGES, "label": CLASS})
    images = jax.jit(family.sample)(state.replace(ema={"denoiser": variables}), keys, jnp.zeros(2, jnp.int32))
    assert np.mean((images > 0) & (images < 1)) > 0.5
    torch_weights.copy_weights(torch_training.average, variables)
    torch = torch_weights.torch
    with torch.no_grad():
        drawn = torch_training.draw(torch.from_numpy(channels_first(noise).copy()))
    np.testing.assert_allclose(drawn.numpy(), channels_first(images), atol=1e-4)


def test_pytorch_averages_the_weights(torch_weights, torch_training):
    torch = torch_weights.torch
    network, average = torch_training.networks["unet"], torch_training.average
    image, label = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8), torch.arange(4)

    def kernels():
        return network.head.weight.detach().clone(), average.head.weight.detach().clone()

    torch_training.step(image, label)
    first, averaged = kernels()
    assert first.std() > 0 and torch.equal(first, averaged)  # the initialisation has no weight
    torch_training.step(image, label)
    second, averaged = kernels()
    weight = workload.average_weight(2)
    torch.testing.assert_close(averaged, first + weight * (second - first))
    assert not torch.equal(averaged, second)
