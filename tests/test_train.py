"""Optimizers against optax, averaging, durations, the grouping of steps into calls, and the progress display."""

from __future__ import annotations

import io
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genjax.families.averaging import exponential_average, update_ema
from genjax.families.base import learning_rates, new_state
from genjax.train import progress
from genjax.train.duration import to_steps
from genjax.train.optim import OPTIMIZERS, SCHEDULES, adam, make_schedule, sgd
from genjax.train.plan import calls
from genjax.train.progress import LINE_SECONDS, Progress, clock, numbers
from genjax.types import UserError

PARAMS = {"dense": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.3, -0.1])}}


def gradients(step):
    generator = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(generator.normal(size=p.shape), jnp.float32), PARAMS)


def trajectory(update, opt, steps=12):
    params, path = PARAMS, []
    for step in range(steps):
        params, opt = update(gradients(step), opt, params, step)
        path.append(params)
    return path


def ours(optimizer):
    def update(grads, opt, params, step):
        return optimizer.update(grads, opt, params, jnp.asarray(optimizer.learning_rate), jnp.asarray(step))

    return trajectory(jax.jit(update), optimizer.init(PARAMS))


def theirs(transform):
    def update(grads, opt, params, step):
        updates, opt = transform.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt

    return trajectory(jax.jit(update), transform.init(PARAMS))


def same(first, second):
    return all(
        np.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    )


def rate(name, warmup, total=10, peak=0.05):
    """The same schedule in optax's words."""
    decay = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, total - warmup),
        "linear": optax.linear_schedule(peak, 0.0, total - warmup),
    }[name]
    ramp = optax.linear_schedule(peak / (warmup + 1), peak, warmup) if warmup else optax.constant_schedule(peak)
    return optax.join_schedules([ramp, decay], [warmup])


@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 0), ("cosine", 3), ("linear", 0), ("linear", 4)])
def test_adam_is_optax_adam_step_by_step(schedule, warmup):
    optimizer = adam(0.05, 10, b1=0.8, b2=0.95, eps=1e-6, schedule=schedule, warmup_steps=warmup)
    reference = theirs(optax.adam(rate(schedule, warmup), b1=0.8, b2=0.95, eps=1e-6))
    assert same(ours(optimizer), reference)
    assert not same(ours(adam(0.05, 10, b1=0.8, b2=0.9, eps=1e-6, schedule=schedule, warmup_steps=warmup)), reference)
    assert not same(ours(adam(0.05, 11, b1=0.8, b2=0.95, eps=1e-6, schedule="cosine", warmup_steps=1)), reference)


def kernels(params):
    return {"dense": {"kernel": True, "bias": False}}


def test_adam_with_weight_decay_is_optax_adamw_on_kernels_only():
    optimizer = adam(0.05, 10, weight_decay=0.3, schedule="cosine", warmup_steps=2)
    path = ours(optimizer)
    schedule = rate("cosine", 2)
    assert same(path, theirs(optax.adamw(schedule, weight_decay=0.3, mask=kernels)))
    assert not same(path, theirs(optax.adamw(schedule, weight_decay=0.3)))
    assert not same(path, theirs(optax.chain(optax.add_decayed_weights(0.3, kernels), optax.adam(schedule))))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_optax_sgd(nesterov):
    reference = theirs(optax.sgd(rate("linear", 1), momentum=0.7, nesterov=nesterov))
    optimizer = sgd(0.05, 10, momentum=0.7, nesterov=nesterov, schedule="linear", warmup_steps=1)
    assert same(ours(optimizer), reference)
    assert same(ours(sgd(0.05, 10, momentum=0.0)), theirs(optax.sgd(0.05)))
    assert not same(ours(sgd(0.05, 10, momentum=0.7, nesterov=not nesterov)), reference)


def test_clipping_bounds_the_norm_of_all_gradients_together():
    for clip in (0.5, 1e6):
        reference = theirs(optax.chain(optax.clip_by_global_norm(clip), optax.sgd(0.05)))
        assert same(ours(sgd(0.05, 10, momentum=0.0, clip_norm=clip)), reference)
    assert same(ours(sgd(0.05, 10, momentum=0.0)), reference) and clip == 1e6
    by_leaf = theirs(optax.chain(optax.clip_by_block_rms(0.5), optax.sgd(0.05)))
    assert not same(ours(sgd(0.05, 10, momentum=0.0, clip_norm=0.5)), by_leaf)


def test_the_learning_rate_is_an_argument():
    optimizer = sgd(0.05, 10, momentum=0.0)
    grads, opt = gradients(0), optimizer.init(PARAMS)
    for value in (0.0, 0.2):
        params, _ = optimizer.update(grads, opt, PARAMS, jnp.asarray(value), jnp.asarray(0))
        expected = jax.tree.map(lambda p, g, value=value: p - value * g, PARAMS, grads)
        assert same(params, expected)


def check_schedule(make_schedule):
    for name in SCHEDULES:
        schedule = make_schedule(name, 100, 20)
        warm = [float(schedule(jnp.asarray(s))) for s in range(21)]
        np.testing.assert_allclose(warm, np.arange(1, 22) / 21, rtol=1e-5)  # never 0: the first step moves, too
    last = 0.5 * (1 + math.cos(math.pi * 79 / 80))
    ends = {"constant": (1.0, 1.0, 1.0), "cosine": (0.5, last, 0.0), "linear": (0.5, 1 / 80, 0.0)}
    for name, expected in ends.items():
        values = [float(make_schedule(name, 100, 20)(jnp.asarray(s))) for s in (60, 99, 100)]
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert float(make_schedule(name, 100, 20)(jnp.asarray(500))) == pytest.approx(expected[-1], abs=1e-6)
        assert float(make_schedule(name, 1, 0)(jnp.asarray(0))) == 1.0


def test_schedules_meet_their_end_points():
    check_schedule(make_schedule)


@pytest.mark.parametrize(
    "broken",
    [
        lambda name, total, warmup: lambda s: make_schedule(name, total, warmup)(s + 1),
        lambda name, total, warmup: make_schedule(name, total, 0),
        lambda name, total, warmup: lambda s: make_schedule(name, 2 * total, warmup)(s),
        lambda name, total, warmup: lambda s: make_schedule(name, total, warmup)(s % 150),
    ],
    ids=["late", "no_warm_up", "too_long", "restart"],
)
def test_the_schedule_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_schedule(broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        ({"learning_rate": -1e-3}, "must be positive"),
        ({"schedule": "cosin"}, "optim.schedule='cosin' is unknown; accepted: constant, cosine, linear"),
        ({"warmup_steps": 10}, "warmup_steps=10 must be at least 0 and less than the 10 steps"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0 must not be negative"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must not be negative"),
    ],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bad_optimizer_settings_raise_one_line(name, options, message):
    with pytest.raises(UserError) as caught:
        OPTIMIZERS[name](**{"learning_rate": 0.1, "total_steps": 10, **options})
    assert message in str(caught.value) and "\n" not in str(caught.value)


# The state and its average.


OPTIMIZER = {"net": adam(0.01, 10)}


def state_of(decay=0.99):
    variables = {"params": PARAMS, "batch_stats": {"mean": jnp.ones(2), "count": jnp.array(3, jnp.int32)}}
    return new_state(
        {"net": variables}, OPTIMIZER, {**learning_rates(OPTIMIZER), "beta": 2.0}, exponential_average("net", decay)
    )


def test_new_state_holds_every_number_and_shares_no_buffer():
    state = state_of()
    assert state.hparams == {"learning_rate/net": np.float32(0.01), "beta": 2.0}
    assert state.step.dtype == jnp.int32 and int(state.step) == 0
    assert set(state.collections["net"]) == {"batch_stats"} and set(state.ema["net"]) == {"params", "batch_stats"}
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.params, state.collections, state.ema))]
    assert len(set(pointers)) == len(pointers) == 8
    assert state.averaged("net") is state.ema["net"]
    plain = state_of(decay=0.0)
    assert plain.ema == {} and plain.averaged("net")["params"] is plain.params["net"]


def moved(state, decay):
    return update_ema(state, exponential_average("net", decay))


def check_ema(moved):
    for step, decay in [(0, 0.99), (5, 0.99), (81, 0.9), (10**6, 0.9), (10**6, 0.9999)]:
        state = state_of().replace(step=jnp.asarray(step, jnp.int32))
        current = jax.tree.map(lambda leaf: leaf + 10, (state.params, state.collections))
        state = state.replace(params=current[0], collections=current[1])
        kept = min(decay, (1 + step) / (10 + step))
        ema = moved(state, decay).ema["net"]
        np.testing.assert_allclose(
            ema["params"]["dense"]["kernel"], PARAMS["dense"]["kernel"] + 10 * (1 - kept), rtol=1e-5
        )
        np.testing.assert_allclose(ema["batch_stats"]["mean"], 1.0 + 10 * (1 - kept), rtol=1e-5)
        assert int(ema["batch_stats"]["count"]) == 13 and ema["batch_stats"]["count"].dtype == jnp.int32


def test_the_average_warms_up_and_takes_integers_as_they_are():
    check_ema(moved)


@pytest.mark.parametrize(
    "broken",
    [
        lambda state, decay: moved(state, 1.0 - decay),
        lambda state, decay: moved(state.replace(step=jnp.asarray(10**9)), decay),  # without the warm-up
        lambda state, decay: moved(state.replace(step=state.step + 1), decay),
        lambda state, decay: moved(state.replace(collections={"net": state_of().collections["net"]}), decay),
    ],
    ids=["inverted", "cold", "late", "parameters_only"],
)
def test_the_average_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_ema(broken)


# Durations.


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1 step", 1), ("5000 steps", 5000), ("1e3 steps", 1000), ("2.5 steps", 3), (" 7steps ", 7),
        ("1 epoch", 8), ("3 epochs", 24), ("0.5 epochs", 4), ("0.1 epochs", 1),
        ("128 examples", 1), ("129 examples", 2), ("1 example", 1), ("3000000 examples", 23438),
        ("10%", 100), ("0.05%", 1), ("12.55 %", 126), ("100%", 1000),
    ],
)  # fmt: skip
def test_durations_in_every_unit_are_rounded_up(text, steps):
    assert to_steps(text, "total", examples_per_step=128, train_size=1000, total_steps=1000) == steps


@given(st.integers(1, 10**5), st.integers(1, 10**4), st.integers(1, 10**6))
def test_epochs_are_exact(epochs, examples_per_step, train_size):
    expected = math.ceil(Fraction(epochs * train_size, examples_per_step))
    if expected < 2**31:
        assert to_steps(f"{epochs} epochs", "total", examples_per_step, train_size) == expected
    # An epoch more than covers the data, and a step less does not.
    steps = to_steps("1 epoch", "total", examples_per_step, train_size)
    assert (steps - 1) * examples_per_step < train_size <= steps * examples_per_step


@pytest.mark.parametrize(
    "text", ["", "5", "steps", "-5 steps", "0 steps", "0%", "5 stepz", "1e steps", "nan steps", "5 steps 2",
             "1e99 steps", "1e999999999 steps"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UserError, match="checkpoint.every=") as caught:
        to_steps(text, "checkpoint.every", 10, 100, total_steps=50)
    assert "\n" not in str(caught.value)


def test_a_percentage_needs_a_total():
    with pytest.raises(UserError, match="accepted: a number and one of steps, epochs, examples, such as '20 epochs'"):
        to_steps("5%", "total", 10, 100)
    with pytest.raises(UserError, match="steps, epochs, examples or %"):
        to_steps("5 days", "log_every", 10, 100, total_steps=50)


# Steps in calls.


def check_calls(calls, start, total, steps_per_call, cadences):
    total = max(start, total)
    found = list(calls(start, total, steps_per_call, cadences))
    covered = [step for first, count in found for step in range(first, first + count)]
    assert covered == list(range(start, total))
    for first, count in found:
        assert 1 <= count <= steps_per_call
        assert all(step % every for step in range(first + 1, first + count) for every in cadences)  # none is passed
    due = [step for step in range(start + 1, total) if any(step % every == 0 for every in cadences)]
    # As few as that allows: between two due steps only full calls and one rest.
    edges = [start, *due, total]
    assert len(found) == sum(-(-(b - a) // steps_per_call) for a, b in itertools.pairwise(edges))


runs = st.tuples(
    st.integers(0, 60), st.integers(0, 120), st.integers(1, 25), st.lists(st.integers(1, 40), min_size=1, max_size=4)
)


@given(runs)
def test_calls_cover_every_step_and_pass_no_due_one(run):
    check_calls(calls, *run)


@pytest.mark.parametrize(
    "broken",
    [
        lambda start, total, per_call, cadences: ((s, min(per_call, total - s)) for s in range(start, total, per_call)),
        lambda start, total, per_call, cadences: ((s, 1) for s in range(start, total)),
        lambda start, total, per_call, cadences: list(calls(start, total, per_call, cadences))[:-1],
        lambda start, total, per_call, cadences: (
            (s + start, c) for s, c in calls(0, total - start, per_call, cadences)
        ),
    ],
    ids=["ignores_what_is_due", "one_by_one", "last_missing", "counts_from_the_start"],
)
def test_the_call_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_calls(broken, 3, 50, 8, [12, 10])


# Progress.


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


def test_without_a_terminal_a_line_comes_now_and_then_and_at_the_end(monkeypatch):
    ticking = Clock()
    monkeypatch.setattr(progress, "time", ticking)
    stream = io.StringIO()
    shown = Progress(100, 0, stream)
    for step in range(1, 101):
        ticking.now += LINE_SECONDS / 20
        shown.update(step, 1234.5, 62.0, {"loss": 0.51234, "accuracy": 0.9})
    shown.say("done")
    shown.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 1/100 (1%)  1,234 images/s  1:02 left  loss 0.5123  accuracy 0.9"
    steps = [int(line.split()[1].split("/")[0]) for line in lines[:-1]]
    assert steps == [1, 21, 41, 61, 81, 100]  # the last one whatever the time
    assert lines[-1] == "done"


def test_a_terminal_draws_a_bar_and_prints_lines_above_it():
    stream = Terminal()
    shown = Progress(40, 10, stream)
    shown.update(20, 1234.5, 62.0, {"loss": 0.51234})
    shown.say("evaluation at step 20")
    shown.update(40, 2000.0, 0.0, {"loss": 0.25})
    shown.close()
    text = stream.getvalue()
    assert "\r" in text and "evaluation at step 20\n" in text
    last = text.rstrip("\n").split("\r")[-1]
    assert last.startswith("100%|") and "40/40" in last and "2,000 images/s" in last and "loss 0.25" in last
    assert "<" in last  # elapsed<remaining
    assert " 25%|" in text  # a continued run starts where it was


def test_clock_and_numbers():
    assert [clock(s) for s in (0, 59.9, 61, 3600, 90061)] == ["0:00", "0:59", "1:01", "1:00:00", "25:01:01"]
    assert numbers({"elbo": -101.234, "kl": 24.5}) == "elbo -101.2  kl 24.5"
    assert numbers({"loss": float("nan")}) == "loss nan"
