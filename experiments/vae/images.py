"""A data set, and its rows as binary pixels: unpacked, or drawn from grey levels by key."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt8

from hiwae_jax import data as datasets

AnyDataset = datasets.Dataset | datasets.GreyDataset
Pixels = Callable[[UInt8[Array, "... bytes"], PRNGKeyArray], jax.Array]  # `(rows, key) -> x`


def load(name: str, data_dir: pathlib.Path | None) -> AnyDataset:
    """The data set of that name, from its raw files in `data_dir` if it is not prepared yet."""
    return datasets.load_dataset(name, manual_dir=data_dir)


def make_pixels(data: AnyDataset) -> Pixels:
    """`(rows [..., bytes], key) -> float32 [..., P]` of 0 and 1; grey levels are binarized afresh by the key."""
    if isinstance(data, datasets.GreyDataset):
        return lambda rows, key: datasets.binarize(key, rows)
    num_pixels = data.shape[0] * data.shape[1]
    return lambda rows, key: datasets.unpack_bits(rows, num_pixels=num_pixels)


def pixel_mean(data: AnyDataset) -> np.ndarray:
    """Probability of each pixel over the training set, [P]."""
    if isinstance(data, datasets.GreyDataset):
        return data.train.mean(axis=0) / 255.0
    return np.unpackbits(data.train, axis=-1, count=data.shape[0] * data.shape[1]).mean(axis=0)


def spread(split: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, evenly spread over the split, since some sets are sorted; all of them if `count` is 0."""
    if not 0 < count < len(split):
        return split
    return split[np.linspace(0, len(split) - 1, count).round().astype(int)]
