"""Data for every task: read from files that packages carry, or drawn; split, cut into windows, and simple models to beat.

DNA's next base: `fasta` and `twobit` read files into `Record`s; `indexed` reads any stretch of a FASTA file of any size, and
`packed` makes rows of it for ranks; `genome` is the E. coli chromosome that ships with the package;
`dna` cuts records into training, validation and test bases and serves windows of them; `markov` is the classical model to
beat.

All other tasks make a `Split` of `examples`: `promoters`, `genes`, `species`, `text`, `mnist`, `audio`, whose files `packages`
fetches once; `pathfinder` and `recall`, which are drawn. `baselines` has the models to beat. A batch is a function of (seed,
step, rank) alone. `SOURCES.md` says where everything comes from.
"""

from __future__ import annotations

from longwave.errors import MissingDependencyError

try:
    import numpy as _numpy  # noqa: F401  every module of this package needs it: refuse here, once
except ImportError as error:
    raise MissingDependencyError(
        "longwave.data works on NumPy arrays and numpy is not installed; run `pip install 'longwave[train]'`"
    ) from error
