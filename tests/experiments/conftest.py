"""What all tests of the experiments need."""

import jax
import pytest

from experiments.vae import images


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax multiplies Python numbers by integer counts, which the strict setting of the library's tests forbids.

    It holds for all threads.
    """
    before = jax.config.jax_numpy_dtype_promotion
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", before)


@pytest.fixture(scope="session")
def digits():
    """The data set that is there without files."""
    return images.load("digits", None)
