"""The order of examples, evaluation batches and augmentation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data import augment, order, sources
from genjax.types import UserError


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 97, 1797, 60000])
def test_every_epoch_is_a_permutation(n):
    for seed, epoch in ((0, 0), (1, 5), (2**32 - 1, 2**31)):
        found = order.epoch_indices(seed, epoch, n, np)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(np.sort(found), np.arange(n))


def is_bijective(permute, n: int) -> bool:
    return len(np.unique(permute(np.arange(n, dtype=np.uint32)))) == n


def test_bijection_check_rejects_a_wrong_round():
    """A round that forgets the modulus in its sum (so that it wraps at 2**32 instead) is no permutation."""
    n, (a, _) = 1797, order._factors(1797)

    def broken(x):
        left, right = x % np.uint32(a), x // np.uint32(a)
        return ((left + order._hash(right)) ^ right) % np.uint32(n)

    def right(x):
        return order._permute(x, np.uint32([3]), np.uint32([4]), n, np)

    assert is_bijective(right, n) and not is_bijective(broken, n)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 10), (7, 16), (1, 4), (1797, 100), (59999, 128)])
def test_batches_run_through_the_epochs(n, batch_size):
    steps = min(3 * n // batch_size + 2, 60)
    batches = np.concatenate([order.batch_indices(7, step, batch_size, n, np) for step in range(steps)])
    epochs = np.concatenate([order.epoch_indices(7, epoch, n, np) for epoch in range(len(batches) // n + 1)])
    np.testing.assert_array_equal(batches, epochs[: len(batches)])


@pytest.mark.parametrize("n", [3, 1501, 50000, 60000, 2**27 - 39, 2**27])
@pytest.mark.parametrize("batch_size", [1, 128, 8192])
def test_position_is_exact_for_huge_steps(n, batch_size):
    for step in (0, 1, n - 1, 10**6 + 7, 2**31 - 1):
        epoch, offset = order._locate(order._uint32(step, np), batch_size, n)
        exact = divmod(step * batch_size, n)
        assert (int(epoch[0]), int(offset[0])) == (exact[0] % 2**32, exact[1])


@pytest.mark.parametrize("n", [97, 60000])
def test_device_gives_the_same_integers_as_host(n):
    batch = functools.partial(order.batch_indices, batch_size=32, n=n)
    steps = np.array([0, 1, 46, 47, 2**20, 2**31 - 1], np.int32)
    seeds = np.array([0, 1, 2**32 - 1], np.uint32)
    expected = np.stack([[batch(int(seed), int(step), xp=np) for step in steps] for seed in seeds])
    mapped = jax.jit(jax.vmap(jax.vmap(batch, (None, 0)), (0, None)))(seeds, steps)
    assert mapped.dtype == jnp.int32
    np.testing.assert_array_equal(mapped, expected)
    scanned = jax.jit(lambda seed: jax.lax.scan(lambda c, step: (c, batch(seed, step)), 0, steps)[1])(seeds[1])
    np.testing.assert_array_equal(scanned, expected[1])
    np.testing.assert_array_equal(batch(-1, 47, xp=np), expected[2, 3])
    whole = jax.jit(lambda seed: order.epoch_indices(seed, 6, n))(5)
    np.testing.assert_array_equal(whole, order.epoch_indices(5, 6, n, np))


def test_seeds_and_epochs_give_other_orders():
    n = 1797
    orders = [order.epoch_indices(seed, epoch, n, np) for seed in range(4) for epoch in range(4)]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            # Two random permutations agree in one place on average.
            assert (first == second).sum() < 10


def pair_statistic(orders: np.ndarray, bins: int = 10) -> float:
    """Chi-square of (bin of a value, bin of the next), as a z-score: about 0 +- 1 for random orders."""
    n = orders.shape[1]
    binned = orders * bins // n
    counts = np.zeros((bins, bins))
    np.add.at(counts, (binned[:, :-1].ravel(), binned[:, 1:].ravel()), 1)
    expected = counts.sum() / bins**2
    freedom = bins**2 - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def position_correlation(orders: np.ndarray) -> float:
    """The largest |correlation| between position and value, times sqrt(n): about 3 for 40 random orders."""
    n = orders.shape[1]
    return max(abs(np.corrcoef(np.arange(n), row)[0, 1]) for row in orders) * np.sqrt(n)


@pytest.mark.parametrize("n", [1501, 10000])
def test_orders_look_random(n):
    orders = np.stack([order.epoch_indices(3, epoch, n, np) for epoch in range(40)])
    assert abs(pair_statistic(orders)) < 5
    assert position_correlation(orders) < 5


def test_first_example_of_an_epoch_is_uniform():
    orders = jax.jit(jax.vmap(lambda epoch: order.epoch_indices(9, epoch, 10)))(jnp.arange(4000))
    firsts = np.asarray(orders)[:, 0]
    assert np.abs(np.bincount(firsts, minlength=10) - 400).max() < 5 * np.sqrt(400)


def test_randomness_checks_reject_a_linear_order():
    n = 1501
    multiples = np.stack([(np.arange(n) * (epoch + 2)) % n for epoch in range(40)])
    rotations = np.stack([(np.arange(n) + 37 * epoch) % n for epoch in range(40)])
    assert pair_statistic(multiples) > 5
    assert position_correlation(rotations) > 5


def test_order_rejects_sizes_out_of_range():
    for n, batch_size in ((0, 1), (2**27 + 1, 1), (10, 0)):
        with pytest.raises(ValueError):
            order.batch_indices(0, 0, batch_size, n, np)


def test_eval_batches_cover_everything_once():
    source = sources.digits("test[:50]")
    batches = list(order.eval_batches(source, 16))
    assert len(batches) == 4
    for batch in batches:
        assert batch["image"].shape == (16, 8, 8, 1) and batch["label"].shape == (16,)
        assert batch["index"].dtype == np.int32 and batch["mask"].dtype == np.float32
    real = np.concatenate([batch["mask"] for batch in batches]).astype(bool)
    assert real.sum() == 50 and real[:50].all()
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(images[real], source.images)
    np.testing.assert_array_equal(images[~real], np.repeat(source.images[:1], 14, 0))
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in batches])[real], np.arange(50))
    with pytest.raises(ValueError):
        next(order.eval_batches(source, 0))


# Augmentation


def random_images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def test_flip_mirrors_about_half():
    images = jnp.asarray(random_images(400, 5, 6, 3))
    flipped = jax.jit(augment.flip)(jax.random.key(0), images)
    assert flipped.dtype == jnp.uint8
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert bool((same ^ mirrored).all()) and 150 < int(mirrored.sum()) < 250


@pytest.mark.parametrize(("padding", "mode"), [("zero", "constant"), ("edge", "edge")])
def test_crop_shifts_by_every_amount(padding, mode):
    images = random_images(300, 9, 8, 3)
    move = jax.jit(functools.partial(augment.crop, max_shift=2, padding=padding))
    moved = np.asarray(move(jax.random.key(1), images))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode=mode)
    seen = set()
    for image, candidates in zip(moved, padded, strict=True):
        windows = {(y, x): candidates[y : y + 9, x : x + 8] for y in range(5) for x in range(5)}
        matches = [shift for shift, window in windows.items() if np.array_equal(image, window)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 25


def test_crop_default_shift_and_wrong_arguments():
    for side, shift in ((32, 4), (28, 2), (8, 1)):
        images = jnp.full((64, side, side, 1), 200, jnp.uint8)
        rows = (np.asarray(jax.jit(augment.crop)(jax.random.key(2), images)) == 0).all(2)[..., 0].sum(1)
        assert rows.max() == shift
    with pytest.raises(ValueError, match="mirror"):
        augment.crop(jax.random.key(0), images, padding="mirror")
    with pytest.raises(ValueError, match="8"):
        augment.crop(jax.random.key(0), images, max_shift=8)


def test_augment_composes_by_name():
    images = jnp.asarray(random_images(16, 8, 8, 1))
    key = jax.random.key(3)
    np.testing.assert_array_equal(augment.augment(())(key, images), images)
    both = jax.jit(augment.augment(("flip", "crop")))(key, images)
    assert both.shape == images.shape and both.dtype == jnp.uint8 and not np.array_equal(both, images)
    with pytest.raises(UserError, match="^augment: unknown name 'rotate'; valid names: crop, flip$"):
        augment.augment(("flip", "rotate"))
    with pytest.raises(UserError, match="^augment: 'flip' is named twice.*$"):
        augment.augment(("flip", "flip"))
