"""Codes of images whose factors are known: does each dimension stand for one factor?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from genjax import rng
from genjax.data.base import Factors
from genjax.evaluators.base import Context, Report, Stopped, check_at_least
from genjax.metrics import disentanglement as metric
from genjax.metrics.intervals import student_t_quantile
from genjax.types import UserError

NAME = "disentanglement"
BATCH, THRESHOLD = 64, 0.05  # of the FactorVAE score, as in Locatello et al. 2019


@dataclasses.dataclass(frozen=True)
class Disentanglement:
    """The scores of ``genjax/metrics/disentanglement.py``, of the codes that the family's ``encode`` gives.

    Each draw takes other examples of the split, without replacement, and encodes them anew; a score is the mean over
    draws, and its interval that of Student's t. SAP is by squared correlations, importances by the lasso, which is
    fitted to the first half of a draw and tested on the other; the batches of the FactorVAE score are drawn from the
    codes of the draw, with replacement. A code of which no dimension matters to any factor is worth 0.

    Attributes:
      examples: in a draw.
      draws: at least 2.
      bins: of each dimension, for mutual information.
      alpha: weight of the lasso's penalty.
      train_votes, test_votes: of the FactorVAE score.

    Raises:
      ValueError: a setting out of range.
    """

    examples: int = 10_000
    draws: int = 5
    bins: int = 20
    alpha: float = 0.02
    train_votes: int = 10_000
    test_votes: int = 5_000

    def __post_init__(self):
        check_at_least(4, examples=self.examples)
        check_at_least(2, draws=self.draws, bins=self.bins)
        check_at_least(1, train_votes=self.train_votes, test_votes=self.test_votes)
        if not 0.0 <= self.alpha < 1.0:
            raise ValueError(f"alpha={self.alpha} is out of range; accepted: at least 0 and below 1")

    def check(self, context: Context) -> None:
        """Raises UserError for a family without codes, and for a split of unknown factors or of too few examples."""
        context.extra("encode", NAME)
        _factors(context)
        if len(context.source) < (count := self._count(context)):
            raise UserError(
                f"evaluator {NAME!r} draws examples={count}, and the test split has {len(context.source)}; "
                "accepted: no more than it has"
            )

    def __call__(self, context: Context) -> Report:
        self.check(context)
        factors, count = _factors(context), self._count(context)
        try:
            rounds = [self._draw(context, factors.values, count, number) for number in range(self.draws)]
        except ValueError as error:
            raise UserError(f"evaluator {NAME!r}: {error}") from error
        scores = {name: np.array([found[name] for found in rounds]) for name in rounds[0]}
        means = {name: float(values.mean()) for name, values in scores.items()}
        t = student_t_quantile(0.975, self.draws - 1)
        half = {name: float(t * values.std(ddof=1) / np.sqrt(self.draws)) for name, values in scores.items()}
        intervals = {name: (means[name] - half[name], means[name] + half[name]) for name in means}
        return Report(means, protocol={**self._facts(context, factors, count), "intervals_95": intervals})

    def _count(self, context: Context) -> int:
        return min(self.examples, context.limit or self.examples)

    def _draw(self, context: Context, values: np.ndarray, count: int, number: int) -> dict[str, float]:
        """Every score of one draw of ``count`` examples."""
        generator = np.random.default_rng([context.seed % 2**32, number])
        index = generator.permutation(len(context.source))[:count]
        codes = encoded(context, index, f"{NAME} {number}")
        factors, half = values[index], count // 2
        dci = metric.dci_lasso(codes[:half], factors[:half], codes[half:], factors[half:], self.alpha)
        return {
            "mig": metric.mig(codes, factors, self.bins),
            "sap": metric.sap(metric.squared_correlation(codes, factors)),
            "modularity": metric.modularity(codes, factors, self.bins),
            **dataclasses.asdict(dci),
            "factor_vae_score": metric.factor_vae_score(
                sharing(codes, factors),
                factors.shape[1],
                codes.var(axis=0, ddof=1),
                int(generator.integers(2**31)),
                self.train_votes,
                self.test_votes,
                BATCH,
                THRESHOLD,
            ),
        }

    def _facts(self, context: Context, factors: Factors, count: int) -> dict[str, Any]:
        return {
            "data": context.source.provenance,
            "factors": dict(zip(factors.names, factors.sizes, strict=True)),
            "seed": context.seed,
            "draws": self.draws,
            "examples": count,
            "bins": self.bins,
            "sap": "squared correlation",
            "importances": {"model": "lasso", "alpha": self.alpha, "fitted_to": count // 2},
            "votes": {"train": self.train_votes, "test": self.test_votes, "batch": BATCH, "threshold": THRESHOLD},
        }


def _factors(context: Context) -> Factors:
    if context.source.factors is None:
        raise UserError(f"evaluator {NAME!r} needs images of known factors; accepted: data.source=shapes")
    return context.source.factors


def encoded(context: Context, index: np.ndarray, noise: str) -> np.ndarray:
    """The family's codes float ``[N, D]`` of the examples at int ``[N]``, with noise of a name; at any batch size.

    Raises:
      Stopped: ``context.stop`` became true.
    """
    encode, key = context.extra("encode", NAME), rng.stream(context.key(NAME), noise)
    codes = []
    for start in range(0, len(index), context.batch_size):
        if context.stop():
            raise Stopped
        part = index[start : start + context.batch_size]
        # One shape for all batches: one program.
        padded = np.concatenate([part, np.zeros(context.batch_size - len(part), part.dtype)])
        batch = {**context.source.gather(padded), "index": padded.astype(np.int32)}
        codes.append(np.asarray(encode(context.state, context.place(batch), key))[: len(part)])
    return np.concatenate(codes)


def sharing(codes: np.ndarray, factors: np.ndarray) -> Callable[[int, int, np.random.Generator], np.ndarray]:
    """What ``factor_vae_score`` draws: codes of examples that share a value of one factor, any of its values alike.

    Args:
      codes: float ``[N, D]``.
      factors: int ``[N, F]`` of the same examples.
    """
    order = np.argsort(factors, axis=0, kind="stable")
    starts = [np.unique(column[rows], return_index=True)[1] for column, rows in zip(factors.T, order.T, strict=True)]
    ends = [np.append(start[1:], len(factors)) for start in starts]

    def draw(factor: int, count: int, generator: np.random.Generator) -> np.ndarray:
        value = generator.integers(len(starts[factor]))
        rows = generator.integers(starts[factor][value], ends[factor][value], size=count)
        return codes[order[rows, factor]]

    return draw
