"""Which latents are in use: known variances, the threshold, and the evaluator."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data.base import ArraySource
from genjax.evaluators import ActiveUnits
from genjax.evaluators.base import Context
from genjax.metrics.latents import active_units, activity
from genjax.types import ImageSpec, UserError

SPEC = ImageSpec(2, 2, 1)


def test_activity_is_the_variance_over_the_data():
    means = np.random.default_rng(0).normal(3.0, [2.0, 0.05, 0.2], (20_000, 3))
    np.testing.assert_allclose(activity(means), [4.0, 0.0025, 0.04], rtol=0.05)
    assert activity(np.array([[1.0], [3.0]])) == pytest.approx([2.0])
    assert active_units(means) == 2


def test_a_shift_of_all_means_uses_no_latent():
    means = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_allclose(activity(means + 100.0), activity(means), rtol=1e-4)
    assert active_units(np.full((50, 4), 7.0)) == 0


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (np.zeros((1, 3)), "means has 1 rows; accepted: at least 2"),
        (np.zeros(3), r"means has shape \(3,\)"),
        (np.full((4, 2), np.nan), "not finite"),
    ],
)
def test_what_has_no_variance_is_refused(means, message):
    with pytest.raises(ValueError, match=message):
        activity(means)


def context(extras, count=23):
    images = np.random.default_rng(0).integers(0, 256, (count, *SPEC.shape), np.uint8)
    source = ArraySource(SPEC, "noise", {"source": "noise", "count": count}, images)
    return Context(SimpleNamespace(eval_step=None, sample=None, extras=extras), {}, source, SPEC, 7, 4)


def encode(state, batch, key):
    """The first latent follows a pixel; the second is the same for all, but in padded rows."""
    pixel = batch["image"][:, 0, 0, 0] / 255.0
    return jnp.stack([pixel, jnp.zeros_like(pixel)], axis=1)


def test_the_evaluator_counts_real_examples_alone():
    given = context({"encode": encode})
    report = ActiveUnits()(given)
    assert report.scalars == {"active_units": 1.0, "latents": 2.0}
    assert isinstance(given.source, ArraySource)
    pixel = given.source.images[:, 0, 0, 0] / 255.0
    assert report.protocol["activity"][0] == pytest.approx(pixel.var(ddof=1), rel=1e-3)
    assert report.protocol["examples"] == 23


def test_a_family_without_an_encoder_is_told():
    with pytest.raises(UserError, match="evaluator 'active_units' needs the function 'encode'"):
        ActiveUnits()(context({}))
