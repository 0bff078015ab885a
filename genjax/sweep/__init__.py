"""What varies in a sweep, said beside the config that it varies.

A config file's ``sweep()`` returns a list of overrides, one dictionary of dotted setting to value for each run::

    from genjax.sweep import product, seeds, values

    def sweep():
        return product(values("optim.learning_rate", 1e-4, 3e-4, 1e-3), seeds(3))

or a ``Search``, whose runs are chosen one by one from the results of those before. Words that make lists are in
``space``, ranges and draws from them in ``ranges``, what a run's folder is called in ``names``.
"""

from genjax.sweep.names import run_names
from genjax.sweep.ranges import Choice, Range, When, quasi_random, random, when
from genjax.sweep.search import Search
from genjax.sweep.space import Overrides, chain, key_of, product, seeds, unique, values, zipped

__all__ = [
    "Choice",
    "Overrides",
    "Range",
    "Search",
    "When",
    "chain",
    "key_of",
    "product",
    "quasi_random",
    "random",
    "run_names",
    "seeds",
    "unique",
    "values",
    "when",
    "zipped",
]
