"""The gradient that slices of a batch make together."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from genjax.families.update import mean_gradient

PARAMS, STATISTICS = {"w": jnp.float32(2.0)}, {"statistics": {"seen": jnp.float32(8.0)}}


def loss_fn(variables, x):
    w, seen = variables["params"]["w"], variables["statistics"]["seen"]
    return (w * x) ** 2, {"x": x, "w": w}, {"statistics": {"seen": 0.5 * (seen + jnp.mean(x))}}


def check(mean_gradient):
    """The gradient of the whole batch, means of the metrics, and statistics handed from slice to slice."""
    for count in (1, 3):
        x = jnp.arange(1.0, 13.0).reshape(count, -1)
        seen = 8.0
        for piece in x:
            seen = 0.5 * (seen + float(piece.mean()))
        grads, collections, metrics = mean_gradient(loss_fn, PARAMS, STATISTICS, (x,), count)
        assert float(grads["w"]) == pytest.approx(float(jnp.mean(4 * x**2)))
        assert float(collections["statistics"]["seen"]) == pytest.approx(seen)
        expected = {"loss": float(jnp.mean(4 * x**2)), "x": 6.5, "w": 2.0}
        assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected)


def test_slices_give_the_gradient_of_the_whole_batch_and_hand_statistics_on():
    check(mean_gradient)


def of_the_last_slice(loss_fn, params, collections, slices, count):
    return mean_gradient(loss_fn, params, collections, (slices[0][-1:],), 1)


def summed(loss_fn, params, collections, slices, count):
    def larger(variables, x):
        loss, *rest = loss_fn(variables, x)
        return count * loss, *rest

    return mean_gradient(larger, params, collections, slices, count)


def with_statistics_from_the_start(loss_fn, params, collections, slices, count):
    def forgetful(variables, x):
        return loss_fn({**variables, **collections}, x)

    return mean_gradient(forgetful, params, collections, slices, count)


@pytest.mark.parametrize("broken", [of_the_last_slice, summed, with_statistics_from_the_start])
def test_the_check_rejects(broken):
    with pytest.raises(AssertionError):
        check(broken)
