"""The published numbers of Huang et al. (2019), "Hierarchical Importance Weighted Autoencoders".

Test negative log-likelihood in nats, lower is better. The other columns of their Tables 4 to 11 are not here.
"""

from typing import NamedTuple

Row = tuple[str, int]  # model, and encoder updates in a minibatch


class Table(NamedTuple):
    """A published table.

    Attributes:
      number: in the paper.
      dataset: a name of `hiwae_jax.data.dataset_names()`.
      title: what it is of.
      num_samples: its columns, K.
      nll: test NLL by row and K.
      details: by K, the number of the appendix's table with the bounds of the same cells.
    """

    number: int
    dataset: str
    title: str
    num_samples: tuple[int, ...]
    nll: dict[Row, dict[int, float]]
    details: dict[int, int]


SPREAD = (0.02, 0.61)  # least and largest standard deviation over the 5 seeds, MNIST

MNIST = Table(
    number=1,
    dataset="binarized_mnist",
    title="statically binarized MNIST",
    num_samples=(1, 2, 5, 10),
    nll={
        ("iwae", 1): {1: 82.37, 2: 81.77, 5: 81.37, 10: 81.13},
        ("hiwae-0", 1): {1: 81.96, 2: 81.65, 5: 81.93, 10: 82.17},
        ("hiwae-1", 1): {1: 81.89, 2: 81.60, 5: 81.16, 10: 81.04},
        ("hiwae-3", 1): {1: 81.93, 2: 81.66, 5: 81.13, 10: 81.08},
    },
    details={1: 4, 2: 5, 5: 6, 10: 7},
)
OMNIGLOT = Table(
    number=2,
    dataset="omniglot",
    title="dynamically binarized OMNIGLOT",
    num_samples=(1, 2, 5, 10),
    nll={
        ("iwae", 1): {1: 103.28, 2: 100.48, 5: 99.90, 10: 98.48},
        ("hiwae-0", 1): {1: 100.79, 2: 100.16, 5: 99.23, 10: 98.80},
        ("hiwae-1", 1): {1: 100.57, 2: 100.00, 5: 99.21, 10: 99.04},
        ("hiwae-3", 1): {1: 100.50, 2: 100.18, 5: 99.80, 10: 99.22},
    },
    details={1: 8, 2: 9, 5: 10, 10: 11},
)
CALTECH = Table(
    number=3,
    dataset="caltech101_silhouettes",
    title="Caltech101 Silhouettes",
    num_samples=(1, 2, 5),
    nll={
        ("iwae", 1): {1: 118.61, 2: 114.79, 5: 110.49},
        ("iwae-h", 1): {1: 109.71, 2: 108.18, 5: 105.70},
        ("hiwae-0", 1): {2: 107.51, 5: 106.83},
        ("hiwae-1", 1): {2: 107.62, 5: 106.62},
        ("hiwae-3", 1): {2: 107.90, 5: 107.13},
        ("hiwae-1", 2): {2: 104.88, 5: 104.16},
    },
    details={},
)
TABLES = (MNIST, OMNIGLOT, CALTECH)
REBUILT = "omniglot_rebuilt"  # its results stand beside those of OMNIGLOT and may not be equated with them
