"""Power-function averages: in training, and rebuilt afterwards from those that checkpoints hold."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from genjax.families.averaging import (
    LONGEST,
    averaged_network,
    exponential_average,
    power_averages,
    power_exponent,
    power_lengths,
    update_ema,
)
from genjax.families.base import new_state
from genjax.io.checkpoint import Checkpoints
from genjax.train import posthoc
from genjax.train.optim import adam
from genjax.train.posthoc import inner_product, profile_weights, rebuild
from genjax.types import UserError

OPTIMIZERS = {"net": adam(0.01, 10)}


# In training.


def test_the_exponent_is_that_of_the_length():
    lengths = np.array([1e-4, 0.01, 0.05, 0.1, 0.2, 0.28, LONGEST])
    gammas = np.array([power_exponent(length) for length in lengths])
    np.testing.assert_allclose((gammas + 1) ** 0.5 / (gammas + 2) / (gammas + 3) ** 0.5, lengths, rtol=1e-10)
    assert (np.diff(gammas) < 0).all() and gammas[-1] == pytest.approx(0, abs=1e-6)  # the mean of all steps
    for gamma, length in zip(gammas[1:5], lengths[1:5], strict=True):  # the deviation of the profile, by quadrature
        moments = [integrate.quad(lambda x, k=k, g=gamma: (g + 1) * x ** (g + k), 0, 1)[0] for k in (1, 2)]
        assert np.sqrt(moments[1] - moments[0] ** 2) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.29, 1.0, float("nan"), float("inf")])
def test_lengths_out_of_range(length):
    with pytest.raises(ValueError, match="is out of range; accepted: above 0, up to 0.2887"):
        power_averages("net", (0.1, length))


def test_names():
    lengths = (0.05, 0.1, 0.123456)
    assert power_lengths("net", lengths) == {"net": 0.05, "net:0.1": 0.1, "net:0.123456": 0.123456}
    averages = power_averages("net", lengths)
    assert list(averages) == list(power_lengths("net", lengths))
    assert (
        {average.network for average in averages.values()} == {averaged_network(name) for name in averages} == {"net"}
    )
    with pytest.raises(ValueError, match="ema_decay=1.0 is out of range"):
        exponential_average("net", 1.0)
    assert power_averages("net", ()) == {} and exponential_average("net", 0.0) == {}
    with pytest.raises(ValueError, match="has one twice"):
        power_averages("net", (0.1, 0.05, 0.1))
    variables = {"params": {"w": jnp.ones(2)}, "stats": {"m": jnp.zeros(1)}}
    state = new_state({"net": variables}, OPTIMIZERS, {}, averages)
    assert set(state.ema) == set(averages) and state.averaged("net") is state.ema["net"]
    leaves = jax.tree.leaves((state.params, state.collections, state.ema))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves) == 8  # donated one by one


def check_weight(weight_of) -> None:
    for length in (0.01, 0.05, 0.2, LONGEST):
        weight, exponent = weight_of(length), power_exponent(length)
        for step in (0, 1, 2, 10, 1000, 10**6, 10**7):
            wanted = -np.expm1((exponent + 1) * np.log1p(-1 / (step + 1))) if step else 1.0
            found = weight(jnp.int32(step))
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_weight_of_a_step_is_right_after_many_of_them():
    check_weight(lambda length: power_averages("net", (length,))["net"].weight)


def _naive(length: float):
    return lambda step: 1.0 - (1.0 - 1.0 / (step.astype(jnp.float32) + 1.0)) ** (power_exponent(length) + 1.0)


@pytest.mark.parametrize(
    "broken",
    [
        _naive,
        lambda length: lambda step: power_averages("net", (length,))["net"].weight(step + 1),
        lambda length: power_averages("net", (length * 0.99,))["net"].weight,
    ],
    ids=["cancelling", "late", "other length"],
)
def test_the_check_of_the_weight_rejects(broken):
    with pytest.raises(AssertionError):
        check_weight(broken)


def trajectory(steps: int, size: int = 3) -> np.ndarray:
    """What weights do in training, ``[steps, size]``: a drift that slows down, and noise."""
    noise = np.random.default_rng(0).normal(size=(steps, size))
    return 3.0 * np.exp(-np.arange(steps) / (0.3 * steps))[:, None] + 0.3 * noise.cumsum(0) / np.sqrt(steps) + noise


def direct(values: np.ndarray, exponent: float) -> np.ndarray:
    """The average after each step, by the recursion, in float64."""
    average, out = np.zeros(values.shape[1:]), []
    for t, value in enumerate(values, 1):
        decay = (1.0 - 1.0 / t) ** (exponent + 1.0)
        average = decay * average + (1.0 - decay) * value
        out.append(average)
    return np.stack(out)


def test_an_average_in_training_is_the_sum_its_profile_says():
    values = trajectory(200)
    averages = power_averages("net", (0.05, 0.2))
    state = new_state(
        {"net": {"params": {"w": jnp.full(3, 1e3)}, "count": {"n": jnp.int32(0)}}}, OPTIMIZERS, {}, averages
    )

    @jax.jit
    def run(state, values):
        def body(state, value):
            collections = {"net": {"count": {"n": state.step + 1}}}
            state = state.replace(params={"net": {"w": value}}, collections=collections)
            return update_ema(state, averages).replace(step=state.step + 1), None

        return jax.lax.scan(body, state, values)[0]

    state = run(state, jnp.asarray(values, jnp.float32))
    for name, length in power_lengths("net", (0.05, 0.2)).items():
        powers = np.arange(201.0) ** (power_exponent(length) + 1)
        wanted = np.diff(powers) @ values / powers[-1]  # the integral of the profile over each step
        np.testing.assert_allclose(state.ema[name]["params"]["w"], wanted, rtol=2e-5)
        np.testing.assert_allclose(wanted, direct(values, power_exponent(length))[-1], rtol=1e-10)
        assert int(state.ema[name]["count"]["n"]) == 200  # whole numbers are those of the last step


# The inner products and the weights.


def check_inner_product(inner_product) -> None:
    for s, a, t, b in [(1, 0, 1, 0), (3, 2.5, 7, 1.2), (7, 1.2, 3, 2.5), (5, 16.97, 5, 6.94), (2, 0.1, 90, 9.0)]:
        profile = lambda x, t, g: (g + 1) * x**g / t ** (g + 1)  # noqa: E731
        product = lambda x: profile(x, s, a) * profile(x, t, b)  # noqa: E731, B023
        wanted, _ = integrate.quad(product, 0, min(s, t), epsabs=0, epsrel=1e-10)
        np.testing.assert_allclose(inner_product(s, a, t, b), wanted, rtol=1e-8)


def test_inner_products_are_those_of_quadrature():
    check_inner_product(inner_product)
    table = inner_product(np.array([[2], [5]]), 1.0, np.array([2, 5, 9]), 3.0)
    assert table.shape == (2, 3) and table.dtype == np.float64
    assert table[1, 0] == inner_product(5, 1.0, 2, 3.0) == inner_product(2, 3.0, 5, 1.0)
    assert np.isfinite(inner_product(10**7, 1e4, 10**7 + 1, 1e4))  # where the powers themselves overflow


@pytest.mark.parametrize(
    "broken",
    [
        lambda s, a, t, b: inner_product(s, b, t, a),
        lambda s, a, t, b: inner_product(t, a, s, b),
        lambda s, a, t, b: inner_product(s, a, t, b) * max(s, t),
    ],
    ids=["exponents", "steps", "not normalised"],
)
def test_the_quadrature_rejects(broken):
    with pytest.raises(AssertionError):
        check_inner_product(broken)


def stored(count: int, total: int, lengths=(0.05, 0.1)) -> tuple[list[int], list[float]]:
    """Where ``count`` checkpoints end, and the exponents they hold."""
    ends = [total * (i + 1) // count for i in range(count) for _ in lengths]
    return ends, [power_exponent(length) for _ in range(count) for length in lengths]


def test_a_stored_profile_is_rebuilt_exactly():
    for count in (1, 2, 10, 40):
        ends, exponents = stored(count, 1000)
        for index in (len(ends) - 1, len(ends) - 2):
            weights, error = profile_weights(ends, exponents, 1000, exponents[index])
            np.testing.assert_allclose(weights, np.arange(len(ends)) == index, atol=1e-7)
            assert error < 1e-6


def check_rebuilt(profile_weights) -> None:
    """The average of a trajectory is the one accumulated directly, the closer the more checkpoints."""
    total = 960
    values = trajectory(total)
    histories = {exponent: direct(values, exponent) for exponent in stored(1, total)[1]}
    for length in (0.03, 0.07, 0.15, 0.2):
        wanted = direct(values, power_exponent(length))[-1]
        missed, errors = [], []
        for count in (4, 8, 16, 32, 96):
            ends, exponents = stored(count, total)
            weights, error = profile_weights(ends, exponents, total, power_exponent(length))
            assert weights.sum() == pytest.approx(1, abs=1e-9)
            found = sum(w * histories[g][t - 1] for w, t, g in zip(weights, ends, exponents, strict=True))
            missed.append(np.abs(found - wanted).max())
            errors.append(error)
        assert (np.diff(errors) < 0).all() and errors[-1] < 2e-3, errors
        assert missed[-1] < 1e-3 and missed[-1] < missed[2] / 5 < missed[0] / 10, missed


def test_a_rebuilt_average_is_the_one_that_training_would_have_taken():
    check_rebuilt(profile_weights)


def nearest(ends, exponents, step, exponent):
    """The stored average of the nearest exponent, instead of a sum."""
    _, error = profile_weights(ends, exponents, step, exponent)
    index = max(range(len(ends)), key=lambda i: (ends[i], -abs(exponents[i] - exponent)))
    return (np.arange(len(ends)) == index) * 1.0, error


@pytest.mark.parametrize(
    "broken",
    [
        nearest,
        lambda ends, exponents, step, exponent: profile_weights(ends, exponents[::-1], step, exponent),
        lambda ends, exponents, step, exponent: profile_weights(ends, exponents, step, exponent + 1),
        lambda ends, exponents, step, exponent: profile_weights([t - 5 for t in ends], exponents, step, exponent),
        lambda ends, exponents, step, exponent: (
            1.01 * profile_weights(ends, exponents, step, exponent)[0],
            profile_weights(ends, exponents, step, exponent)[1],
        ),
    ],
    ids=["nearest", "swapped", "exponent", "early", "scaled"],
)
def test_the_check_of_the_rebuilt_average_rejects(broken):
    with pytest.raises(AssertionError):
        check_rebuilt(broken)


# From checkpoints.

STORED, WANTED, TOTAL = (0.05, 0.1), 0.07, 60


@dataclasses.dataclass
class Trained:
    """Checkpoints of a toy run, its last state, and the average of length ``WANTED`` taken in training."""

    folder: object
    state: object
    family: object
    wanted: object

    def checkpoints(self, **options) -> Checkpoints:
        return Checkpoints(self.folder, read_only=True, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("posthoc")
    names = power_lengths("net", STORED)
    averages = {**power_averages("net", STORED), "wanted": power_averages("net", (WANTED,))["net"]}
    values = trajectory(TOTAL)
    variables = {"params": {"w": jnp.zeros(3), "b": jnp.zeros(())}, "count": {"n": jnp.int32(0)}}
    state = new_state({"net": variables}, OPTIMIZERS, {}, averages)
    with Checkpoints(folder, keep_every=5) as checkpoints:
        for step, value in enumerate(values.astype(np.float32), 1):
            params = {"w": jnp.asarray(value), "b": jnp.asarray(value[0])}
            state = state.replace(params={"net": params}, collections={"net": {"count": {"n": jnp.int32(step)}}})
            state = update_ema(state, averages).replace(step=jnp.int32(step))
            if step % 5 == 0 or step > TOTAL - 3:
                without = state.replace(ema={name: state.ema[name] for name in names})
                checkpoints.save(step, without)
    assert checkpoints.steps() == [*range(5, TOTAL, 5), TOTAL - 1, TOTAL]
    family = types.SimpleNamespace(name="toy", ema_lengths=names)
    return Trained(folder, without, family, state.ema["wanted"])


def check_rebuild(trained, rebuild) -> None:
    state, record = rebuild(trained.family, trained.state, trained.checkpoints(keep_every=5), WANTED)
    own = state.averaged("net")
    np.testing.assert_allclose(own["params"]["w"], trained.wanted["params"]["w"], atol=5e-3)
    assert own["params"]["w"].dtype == jnp.float32 and own["params"]["b"] == own["params"]["w"][0]
    assert int(own["count"]["n"]) == TOTAL and own["count"]["n"].dtype == jnp.int32
    assert record["length"] == WANTED and record["of_lengths"] == list(STORED)
    assert record["of_steps"] == list(range(5, TOTAL + 1, 5)) and 0 < record["profile_error"] < 0.01
    assert state.params is trained.state.params and state.ema["net:0.1"] is trained.state.ema["net:0.1"]


def test_kept_checkpoints_give_another_average(trained):
    check_rebuild(trained, rebuild)


@pytest.mark.parametrize("broken", ["last", "all equal", "swapped"])
def test_the_check_of_rebuild_rejects(trained, broken, monkeypatch):
    combined = posthoc._combined

    def other(state, checkpoints, weights):
        values = list(weights.values())
        values = {
            "last": [0.0] * (len(values) - 1) + [1.0],
            "all equal": [1.0 / len(values)] * len(values),
            "swapped": values[::-1],
        }[broken]
        return combined(state, checkpoints, dict(zip(weights, values, strict=True)))

    monkeypatch.setattr(posthoc, "_combined", other)
    with pytest.raises(AssertionError):
        check_rebuild(trained, rebuild)


def test_a_stored_length_comes_back_without_kept_checkpoints(trained):
    for name, length in trained.family.ema_lengths.items():
        for every in (None, 5):
            state, record = rebuild(trained.family, trained.state, trained.checkpoints(keep_every=every), length)
            wanted = trained.state.ema[name]["params"]["w"]
            np.testing.assert_allclose(state.averaged("net")["params"]["w"], wanted, rtol=1e-5)
            assert record["of_steps"] == (list(range(5, TOTAL + 1, 5)) if every else [TOTAL])


def test_what_cannot_be_rebuilt_says_so_in_one_line(trained):
    plain = types.SimpleNamespace(name="toy", ema_lengths={})
    for family, every, length, message in [
        (plain, 5, 0.07, "--ema=0.07: this toy has no averages that others can be made of; leave the flag out"),
        (trained.family, 5, 0.3, "--ema=0.3: length 0.3 of an average is out of range; accepted: above 0, up to"),
        (trained.family, 5, float("nan"), "--ema=nan: length nan of an average is out of range"),
        (trained.family, 5, 0.001, "60 can't make it; accepted: 0.0"),
        (trained.family, None, 0.07, "no checkpoint before step 60 was kept (checkpoint.keep); accepted: 0.05, 0.1"),
    ]:  # fmt: skip
        with pytest.raises(UserError) as caught:
            rebuild(family, trained.state, trained.checkpoints(keep_every=every), length)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    # What is said to be accepted is.
    lowest, highest = (float(x) for x in _range(trained).split(" to "))
    for length in (lowest, highest):
        rebuild(trained.family, trained.state, trained.checkpoints(keep_every=5), length)


def _range(trained) -> str:
    with pytest.raises(UserError) as caught:
        rebuild(trained.family, trained.state, trained.checkpoints(keep_every=5), 0.001)
    return str(caught.value).partition("accepted: ")[2]
