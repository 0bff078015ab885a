"""Disentanglement: perfect codes score 1 and mixtures less, in each score as far as it claims to tell."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import stats

from genjax.metrics import disentanglement as dis
from genjax.metrics.information import mutual_information

KINDS = (4, 5, 8)


def random_factors(seed=0, count=4000):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, kinds, count) for kinds in KINDS], axis=1)


# A reflection that mixes every factor into every dimension; the two largest parts are equal.
TURN = np.eye(3) - 2.0 / 3.0


def standard(factors):
    return (factors - factors.mean(0)) / factors.std(0)


def with_noise(factors, extra=2, seed=9):
    """One dimension for each factor, on unlike scales, and some that hold nothing."""
    noise = 1e-3 * np.random.default_rng(seed).normal(size=(len(factors), len(KINDS) + extra))
    noise[:, : len(KINDS)] += standard(factors) * [1.0, -3.0, 0.2]
    return noise


# Scores: 1 for perfect codes, less for mixtures, and what each alone tells.


def sap(codes, factors):
    return dis.sap(dis.squared_correlation(codes, factors))


def importance_score(score):
    return lambda codes, factors: score(dis.lasso_importance(codes, factors))


def check_perfect_and_mixed(score):
    factors = random_factors()
    perfect = with_noise(factors)
    assert score(perfect, factors) == pytest.approx(1.0, abs=0.03)
    assert score(standard(factors) @ TURN, factors) < 0.1
    # Neither order, sign nor scale of the dimensions matters.
    changed = -perfect[:, ::-1] * np.array([0.1, 1, 20, 3, 1])
    assert score(changed, factors) == pytest.approx(score(perfect, factors), abs=0.01)


def check_gap(score):
    check_perfect_and_mixed(score)
    factors = random_factors()
    assert score(np.random.default_rng(5).normal(size=(4000, 4)), factors) < 0.05
    # Each factor twice: two dimensions say most of it, and neither more than the other.
    assert score(np.tile(with_noise(factors, 0), 2), factors) == pytest.approx(0.0, abs=1e-12)
    # Two factors in one dimension and nothing else: a gap all the same.
    both = np.c_[factors[:, 0] + 4.0 * factors[:, 1], np.full(len(factors), 0.1)]
    assert score(both, factors[:, :2]) > 0.4


SCORES = {
    "mig": (dis.mig, check_gap),
    "sap": (sap, check_gap),
    "disentanglement": (importance_score(dis.disentanglement), check_perfect_and_mixed),
    "completeness": (importance_score(dis.completeness), check_perfect_and_mixed),
}


@pytest.mark.parametrize("name", SCORES)
def test_perfect_codes_score_one_and_mixtures_less(name):
    score, check = SCORES[name]
    check(score)


def normalized(codes, factors):
    entropies = [mutual_information(factor, factor) for factor in factors.T]
    return dis.mutual_information_matrix(codes, factors) / entropies


BROKEN_GAPS = {
    "not by the entropy": lambda c, f: dis.sap(dis.mutual_information_matrix(c, f)),
    "the largest alone": lambda c, f: normalized(c, f).max(0).mean(),
    "less the mean of all": lambda c, f: (normalized(c, f).max(0) - normalized(c, f).mean(0)).mean(),
    "between factors": lambda c, f: dis.sap(normalized(c, f).T),
    "the dimensions together": lambda c, f: dis.dci_lasso(c, f, c, f).informativeness,
}


@pytest.mark.parametrize("broken", BROKEN_GAPS)
def test_the_check_of_gaps_rejects(broken):
    with pytest.raises(AssertionError):
        check_gap(BROKEN_GAPS[broken])


def check_modularity(modularity):
    factors = random_factors()
    perfect = with_noise(factors, extra=0)
    assert modularity(perfect, factors) == pytest.approx(1.0, abs=0.01)
    # Twice the same is still modular; a constant dimension counts 0.
    assert modularity(np.tile(perfect, 2), factors) == pytest.approx(1.0, abs=0.01)
    assert modularity(np.c_[perfect, np.full(len(factors), 0.1)], factors) == pytest.approx(0.75, abs=0.01)
    # With I = (log 2, log 3, 0) of three factors: 1 - log(2)^2 / (2 log(3)^2).
    a, b, c = (grid.ravel() for grid in np.meshgrid(range(2), range(3), range(4), indexing="ij"))
    expected = 1 - np.log(2) ** 2 / (2 * np.log(3) ** 2)
    assert modularity((a * 3.0 + b)[:, None], np.stack([a, b, c], axis=1)) == pytest.approx(expected)


def test_modularity():
    check_modularity(dis.modularity)


def modularity_of(table, power=2, others=None):
    table = table**power
    best = table.max(1)
    rest = (table.sum(1) - best) / np.where(best > 0, best, 1) / (others or table.shape[1] - 1)
    return float(np.where(best > 0, 1 - rest, 0).mean())


def modularity_broken_by(turn=lambda t: t, **pieces):
    return lambda codes, factors: modularity_of(turn(dis.mutual_information_matrix(codes, factors)), **pieces)


BROKEN_MODULARITY = {
    "not squared": modularity_broken_by(power=1),
    "sums over the others": modularity_broken_by(others=1),
    "exchanged": modularity_broken_by(turn=np.transpose),
    "dimensions in use only": modularity_broken_by(turn=lambda t: t[t.max(1) > 0]),
}


def test_the_check_of_modularity_takes_another_way_to_it():
    check_modularity(modularity_broken_by())


@pytest.mark.parametrize("broken", BROKEN_MODULARITY)
def test_the_check_of_modularity_rejects(broken):
    with np.errstate(invalid="ignore", divide="ignore"), pytest.raises(AssertionError):
        check_modularity(BROKEN_MODULARITY[broken])


def test_codes_without_importance():
    nothing = np.random.default_rng(5).normal(size=(4000, 4))
    importance = dis.lasso_importance(nothing, random_factors(), 0.2)
    assert not importance.any()
    assert [dis.disentanglement(importance), dis.completeness(importance)] == [0.0, 0.0]


def test_the_gap_of_information_by_hand():
    # Codes that are two of three factors: gaps of 1, 1 and 0.
    a, b, c = (grid.ravel() for grid in np.meshgrid(range(2), range(3), range(4), indexing="ij"))
    factors, codes = np.stack([a, b, c], axis=1), np.stack([a, b], axis=1) * 1.0
    assert dis.mig(codes, factors) == pytest.approx(2 / 3)
    expected = [[np.log(2), 0, 0], [0, np.log(3), 0]]
    np.testing.assert_allclose(dis.mutual_information_matrix(codes, factors), expected, atol=1e-12)


def check_dci(disentanglement, completeness):
    even = np.ones((3, 4))
    assert [disentanglement(even), completeness(even)] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert disentanglement(np.eye(3)) == completeness(np.eye(3)) == 1.0
    # Each factor from two dimensions; each dimension for one factor. Dimensions without any don't count.
    doubled = np.concatenate([np.eye(2), np.eye(2)])
    assert disentanglement(doubled) == 1.0
    assert completeness(doubled) == pytest.approx(1 - np.log(2) / np.log(4))
    assert disentanglement(doubled.T) == pytest.approx(1 - np.log(2) / np.log(4)) and completeness(doubled.T) == 1.0
    assert disentanglement(np.concatenate([np.eye(2), np.zeros((2, 2))])) == 1.0
    # Weighted by importance: 3 of 4 parts in a row that is even.
    assert disentanglement(np.array([[1.5, 1.5], [1.0, 0.0]])) == pytest.approx(0.25)
    assert completeness(np.array([[1.5, 1.5], [1.0, 0.0]]).T) == pytest.approx(0.25)
    assert disentanglement(100 * doubled) == disentanglement(doubled)


def test_dci():
    check_dci(dis.disentanglement, dis.completeness)


def plain_mean(table, weights=None, base=None):
    total = table.sum(1, keepdims=True)
    share = table / np.where(total > 0, total, 1)
    scores = 1 - stats.entropy(np.maximum(share, 1e-300), axis=1) / np.log(base or table.shape[1])
    return float(np.average(scores, weights=weights))


BROKEN_DCI = {
    "exchanged": (dis.completeness, dis.disentanglement),
    "not weighted": (plain_mean, lambda t: plain_mean(t.T)),
    "in nats": (
        lambda t: plain_mean(t, t.sum(1), np.e),
        lambda t: plain_mean(t.T, t.sum(0), np.e),
    ),
    "the largest share": (
        lambda t: float(np.average((t / np.maximum(t.sum(1, keepdims=True), 1e-9)).max(1), weights=t.sum(1))),
        dis.completeness,
    ),
}


@pytest.mark.parametrize("broken", BROKEN_DCI)
def test_the_check_of_dci_rejects(broken):
    with pytest.raises(AssertionError):
        check_dci(*BROKEN_DCI[broken])


def test_dci_of_the_lasso():
    factors, test_factors = random_factors(0), random_factors(1)
    codes, test_codes = with_noise(factors), with_noise(test_factors, seed=10)
    found = dis.dci_lasso(codes, factors, test_codes, test_factors, alpha=0.0)
    assert found.informativeness == pytest.approx(1.0, abs=1e-3)
    # A penalty moves every weight by alpha, and the error is its square.
    assert dis.dci_lasso(codes, factors, test_codes, test_factors, 0.1).informativeness == pytest.approx(
        0.99, abs=0.002
    )
    assert found.disentanglement > 0.98 and found.completeness > 0.98
    # A rotation keeps all information and disentangles nothing; noise leaves only what the mean tells.
    turned = dis.dci_lasso(standard(factors) @ TURN, factors, standard(test_factors) @ TURN, test_factors, alpha=0.0)
    assert turned.informativeness == pytest.approx(1.0, abs=1e-3)
    assert turned.disentanglement < 0.5 and turned.completeness < 0.5
    noise, test_noise = (np.random.default_rng(seed).normal(size=(4000, 3)) for seed in (6, 7))
    assert abs(dis.dci_lasso(noise, factors, test_noise, test_factors, alpha=0.0).informativeness) < 0.01


def test_squared_correlation():
    factors = random_factors()
    codes = np.c_[3.0 - 2.0 * factors[:, 0], np.full(len(factors), 0.1), with_noise(factors)[:, 1] ** 3]
    found = dis.squared_correlation(codes, factors)
    assert found[0, 0] == pytest.approx(1.0) and (found[1] == 0.0).all()
    np.testing.assert_allclose(found[2], [np.corrcoef(codes[:, 2], f)[0, 1] ** 2 for f in factors.T], rtol=1e-9)


# The FactorVAE score.


def drawing(encode):
    def draw(factor, count, rng):
        factors = np.stack([rng.integers(0, kinds, count) for kinds in KINDS], axis=1)
        factors[:, factor] = factors[0, factor]
        return encode(factors, rng)

    return draw


MEANS, DEVIATIONS = (np.array(KINDS) - 1) / 2, np.sqrt((np.array(KINDS) ** 2 - 1) / 12)


def perfect(factors, rng, scales=(1.0, 5.0, 0.1)):
    """Each factor in a dimension, on its own scale, with a little noise; and one dimension that is nearly off."""
    codes = (factors - MEANS) / DEVIATIONS + 0.05 * rng.normal(size=factors.shape)
    return np.c_[codes * scales, 1e-3 * rng.normal(size=len(factors))]


def turned(factors, rng):
    return perfect(factors, rng, 1.0)[:, :3] @ TURN


def check_factor_vae(score):
    settings = {"seed": 0, "train_votes": 300, "test_votes": 200}

    def score_of(encode, **more):
        codes = encode(random_factors(3, 2000), np.random.default_rng(0))
        return score(drawing(encode), 3, codes.var(axis=0), **{**settings, **more})

    assert score_of(perfect) == 1.0
    assert score_of(turned) < 0.9
    # Dimensions in another order; noise that holds nothing; nothing in use.
    assert score_of(lambda f, rng: perfect(f, rng)[:, [2, 3, 1, 0]]) == 1.0
    assert 0.15 < score_of(lambda f, rng: rng.normal(size=(len(f), 4))) < 0.5
    assert score_of(lambda f, rng: 1e-3 * rng.normal(size=(len(f), 4))) == 0.0
    # The unused dimension is constant, and would win every vote.
    assert score_of(lambda f, rng: perfect(f, rng) * [1, 1, 1, 0]) == 1.0
    assert score_of(turned) == score_of(turned)


def test_factor_vae():
    check_factor_vae(dis.factor_vae_score)


def without_scales(draw, num_factors, variances, **settings):
    return dis.factor_vae_score(draw, num_factors, np.where(variances > 0.0025, 1.0, 0.0), **settings)


def largest_variance(draw, num_factors, variances, **settings):
    def inverted(factor, count, rng):
        codes = draw(factor, count, rng)
        middle = codes.mean(0)
        return middle + (codes - middle) * (variances / np.maximum(codes.var(0), 1e-12))

    return dis.factor_vae_score(inverted, num_factors, variances, **settings)


def without_pruning(draw, num_factors, variances, **settings):
    return dis.factor_vae_score(
        lambda *a: draw(*a) + 1e-9 * np.arange(a[1])[:, None], num_factors, variances + 1e-12, threshold=0.0, **settings
    )


def another_factor(draw, num_factors, variances, **settings):
    """The factor that is named is not the one that is shared."""
    return dis.factor_vae_score(
        lambda factor, count, rng: draw(int(rng.integers(num_factors)), count, rng), num_factors, variances, **settings
    )


@pytest.mark.parametrize("broken", [without_scales, largest_variance, without_pruning, another_factor])
def test_the_check_of_the_factor_vae_score_rejects(broken):
    with pytest.raises(AssertionError):
        check_factor_vae(broken)


# What is refused.

CODES, FACTORS = np.random.default_rng(0).normal(size=(20, 3)), random_factors(0, 20)
SCORE = functools.partial(dis.factor_vae_score, lambda f, n, rng: np.zeros((n, 2)), seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dis.mig(CODES[:-1], FACTORS), r"accepted: \[N, D\] and int \[N, F\]"),
        (lambda: dis.mig(CODES, FACTORS * 1.0), "factors float64"),
        (lambda: dis.mig(CODES[:, 0], FACTORS), r"accepted: \[N, D\]"),
        (lambda: dis.mig(CODES[:, :1], FACTORS), "D at least 2"),
        (lambda: dis.mig(CODES, FACTORS * [1, 0, 1]), "factor 1 is constant"),
        (lambda: dis.mig(CODES * np.nan, FACTORS), "accepted: finite ones"),
        (lambda: dis.mig(CODES, FACTORS, 1), "bins is 1; accepted: at least 2"),
        (lambda: dis.modularity(CODES, FACTORS[:, :1]), "F at least 2"),
        (lambda: dis.squared_correlation(CODES, FACTORS * 0), "a factor is constant"),
        (lambda: dis.squared_correlation(CODES * np.inf, FACTORS), "accepted: finite ones"),
        (lambda: dis.sap(np.zeros((1, 3))), "D at least 2"),
        (lambda: dis.sap(np.full((2, 3), np.nan)), r"accepted: finite \[D, F\]"),
        (lambda: dis.disentanglement(-np.eye(2)), "at least 0"),
        (lambda: dis.disentanglement(np.ones((3, 1))), "1 factor"),
        (lambda: dis.completeness(np.ones((1, 3))), "1 dimension"),
        (lambda: dis.lasso_importance(CODES, FACTORS, 1.0), "alpha is 1.0; accepted: 0 to below 1"),
        (lambda: dis.lasso_importance(CODES, FACTORS * 0), "a target is constant"),
        (lambda: dis.lasso_importance(CODES * np.nan, FACTORS), "accepted: finite ones"),
        (lambda: dis.dci_lasso(CODES, FACTORS, CODES[:, :2], FACTORS), "accepted: the same D and F"),
        (lambda: dis.dci_lasso(CODES, FACTORS, CODES, FACTORS * 0), "a factor of the test is constant"),
        (lambda: SCORE(num_factors=2, variances=np.ones((2, 2))), r"accepted: \[D\]"),
        (lambda: SCORE(num_factors=2, variances=np.array([1.0, -1.0])), "at least 0"),
        (lambda: SCORE(num_factors=0, variances=np.ones(2)), "accepted: at least 1, 1, 1 and 2"),
        (lambda: SCORE(num_factors=2, variances=np.ones(2), batch_size=1), "batches of 1"),
        (lambda: SCORE(num_factors=2, variances=np.ones(3)), r"drawn codes are \(64, 2\); accepted: finite \(64, 3\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
