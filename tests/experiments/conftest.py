"""What all tests of the experiments need."""

import jax
import pytest

from experiments.vae import images


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax multiplies Python numbers by integer counts, which the strict setting of the library's tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def digits():
    """The data set that is there without files."""
    return images.load("digits", None)
