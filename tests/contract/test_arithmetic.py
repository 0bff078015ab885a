"""Lower precision and rematerialisation change the cost of a step, not what it is."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import tree
from genjax.families.base import Family
from tests import fakes
from tests.contract.checks import Bench, assert_close, bench_of, described

NAMES = ["classifier-cnn", "classifier-alexnet", "classifier-resnet", "gan", "vae-bernoulli"]


def operand_types(family: Family, bench: Bench) -> set[str]:
    """Types of what the convolutions of a step give."""
    text = str(jax.make_jaxpr(family.train_step)(bench.start, bench.batch, bench.key()))
    return set(re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated\[", text))


def check_bfloat16(family: Family, bench: Bench) -> None:
    """Convolutions in bfloat16; state, metrics and what is reported in float32; numbers near float32's."""
    assert operand_types(family, bench) == {"bf16"}, operand_types(family, bench)
    (after, metrics), (wanted, expected) = (
        jax.jit(f.train_step)(bench.start, bench.batch, bench.key()) for f in (family, bench.family)
    )
    assert described(after) == described(bench.start)
    assert {value.dtype for value in metrics.values()} <= {jnp.dtype("float32")}
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=0.1, atol=0.05, err_msg=name)
    signs = [jax.tree.map(lambda a, b: jnp.sign(a - b), s.params, bench.start.params) for s in (after, wanted)]
    same = jax.tree.map(lambda a, b: np.asarray(a == b).ravel(), *signs)
    agree = np.mean(np.concatenate(jax.tree.leaves(same)))
    assert agree > 0.8, f"only {agree:.0%} of the parameters move the same way"


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_for_the_computation_alone(name):
    check_bfloat16(fakes.FAKES[name].family(dtype="bfloat16"), bench_of(name))


def test_the_bfloat16_check_rejects_float32():
    with pytest.raises(AssertionError, match="f32"):
        check_bfloat16(fakes.FAKES["vae-bernoulli"].family(), bench_of("vae-bernoulli"))


def test_rematerialisation_changes_no_parameter_and_no_result():
    plain, remat = (
        fakes.FAKES["classifier-resnet-remat"].family(
            network={"name": "resnet", "width": 4, "blocks": (1, 2), "remat": remat}
        )
        for remat in (False, True)
    )
    bench, other = Bench(plain), Bench(remat)
    assert tree.named_leaves(bench.start.params).keys() == tree.named_leaves(other.start.params).keys()
    arguments = (bench.start, bench.batch, bench.key())
    assert_close(other.step(*arguments), bench.step(*arguments))
    counts = [str(jax.make_jaxpr(f.train_step)(*arguments)).count("conv_general_dilated[") for f in (plain, remat)]
    assert counts[1] > counts[0], f"{counts} convolutions: nothing is computed again"
