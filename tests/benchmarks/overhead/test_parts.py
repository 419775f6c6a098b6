"""The parts of a step that are timed alone are evaluated at the shapes of the step, with gradients of all they need."""

import jax
import numpy as np
import pytest

from benchmarks.overhead import problem as overhead_problem
from benchmarks.overhead.tables import EXACT

SIZES = overhead_problem.Sizes("mlp", 6, 5, latent=3)
DECODER = 3 * 200 + 200 * 200 + 200 * 784  # products of one sample
ENCODER = 784 * 200 + 200 * 6


@pytest.fixture(scope="module")
def parts():
    """Of the IWLB with K = 5 and of the H-IWLB at alpha 0 with K = 2."""
    methods = {5: overhead_problem.Method(None, EXACT), 2: overhead_problem.Method(0.0, EXACT)}
    return {K: overhead_problem.make_problem(SIZES, method, K).parts for K, method in methods.items()}


@pytest.fixture(scope="module")
def image():
    """With its first pixel on: the inputs of parts are a multiple of it."""
    (image,) = overhead_problem.make_batch(1)
    assert image.shape == (784,)
    assert set(np.unique(image)) == {0.0, 1.0}
    return image.at[0].set(1.0)


def test_the_decoder_sees_every_sample_and_the_encoder_every_image_once(parts, image):
    def flops(K, part):
        function, params = parts[K][part]
        lowered = jax.jit(jax.value_and_grad(function)).lower(params, image, jax.random.key(0))
        return lowered.cost_analysis()["flops"]

    assert (flops(5, "decoder") - flops(2, "decoder")) / 3 == pytest.approx(3 * 2 * DECODER, rel=0.05)
    # The image asks for no gradient: its layer has two products, the next one three.
    assert flops(2, "encoder") == flops(5, "encoder") == pytest.approx(2 * 2 * ENCODER + 2 * 200 * 6, rel=0.05)


def test_a_part_depends_on_all_parameters_that_it_is_given(parts, image):
    modules = {K: {part: set(params) for part, (_, params) in found.items()} for K, found in parts.items()}
    for K, own in ((5, {"base"}), (2, {"base", "conditionals", "reverse"})):
        assert modules[K] == {
            "encoder": {"encoder"},
            "proposal networks": own | {"start"},
            "decoder": {"decoder", "start"},
        }
    assert tuple(parts[2]) == overhead_problem.PARTS
    for part, (function, params) in parts[2].items():
        gradient = jax.jit(jax.grad(function))(params, image, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.any(leaf != 0.0), f"{part}: {jax.tree_util.keystr(path)}"
