"""The distance in feature maps: closed forms, invariances, and the network that it is measured with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.evaluators.pairs import STAGES, lite0_perceptual_distance
from genjax.metrics.perceptual import perceptual_distance
from genjax.networks.efficientnet import EfficientNetLite0, efficientnet_input


def maps(seed: int = 0, count: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = [(count, 5, 4, 6), (count, 2, 3, 8)]
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


def cosine(first, second) -> np.ndarray:
    """2 - 2 cos at every position, averaged over them and summed over maps."""
    total = 0.0
    for a, b in zip(first, second, strict=True):
        a, b = a.astype(np.float64), b.astype(np.float64)
        angle = (a * b).sum(-1) / np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
        total = total + (2 - 2 * angle).mean(axis=(1, 2))
    return np.asarray(total)


def check(distance) -> None:
    first, second = maps(0), maps(1)
    np.testing.assert_allclose(distance(first, second), cosine(first, second), rtol=1e-5)
    np.testing.assert_allclose(distance(first, first), 0.0, atol=1e-6)
    np.testing.assert_allclose(distance(first, [-x for x in first]), 4.0 * len(first), rtol=1e-5)
    np.testing.assert_allclose(distance(first, [7 * x for x in first]), 0.0, atol=1e-6)


def test_it_is_that_of_the_angles():
    check(perceptual_distance)
    np.testing.assert_array_equal(perceptual_distance(maps(0), maps(1)), perceptual_distance(maps(1), maps(0)))


def lengths_kept(first, second):
    return sum(jnp.square(a - b).sum(-1).mean((1, 2)) for a, b in zip(first, second, strict=True))


def one_length_for_a_map(first, second):
    unit = [[x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True)) for x in each] for each in (first, second)]
    return lengths_kept(*unit)


def mean_over_maps(first, second):
    return perceptual_distance(first, second) / len(first)


@pytest.mark.parametrize("broken", [lengths_kept, one_length_for_a_map, mean_over_maps])
def test_the_check_rejects(broken):
    with pytest.raises(AssertionError):
        check(broken)


def test_positions_without_features_are_at_no_distance_from_each_other():
    nothing, something = [np.zeros((1, 2, 2, 3), np.float32)], [np.ones((1, 2, 2, 3), np.float32)]
    assert float(perceptual_distance(nothing, nothing)[0]) == 0.0
    assert float(perceptual_distance(nothing, something)[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [([], []), (maps(), maps(count=2)), (maps(), maps()[:1]), ([np.ones((2, 3))],) * 2])
def test_maps_that_are_no_pairs_are_refused(wrong):
    with pytest.raises(ValueError, match="accepted: equal ones, each"):
        perceptual_distance(*wrong)


@pytest.fixture(scope="module")
def variables():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), images)
    generator = np.random.default_rng(0)
    scale = lambda x: 1.0 / np.sqrt(max(np.prod(x.shape[:-1]), 1))  # noqa: E731
    return jax.tree.map(lambda x: (generator.normal(size=x.shape) * scale(x)).astype(np.float32), shapes)


def test_images_are_compared_at_five_resolutions(variables):
    seen = jax.eval_shape(lambda images: EfficientNetLite0().apply(variables, images), jnp.zeros((1, 224, 224, 3)))
    assert [seen.stages[i].shape[1] for i in STAGES] == [112, 56, 28, 14, 7]
    generator = np.random.default_rng(1)
    first = generator.integers(0, 256, (2, 12, 9, 1), np.uint8)
    second = np.stack([first[0], 255 - first[1]])

    @jax.jit
    def measured(variables, first, second):
        stages = [EfficientNetLite0().apply(variables, efficientnet_input(x, 32)).stages for x in (first, second)]
        return lite0_perceptual_distance(variables, first, second, 32), [[each[i] for i in STAGES] for each in stages]

    (near, far), (a, b) = measured(variables, first, second)
    assert near == pytest.approx(0.0, abs=1e-5) and far > 0.01
    np.testing.assert_allclose(
        [near, far], cosine(*([np.asarray(x) for x in each] for each in (a, b))), rtol=1e-3, atol=1e-5
    )
