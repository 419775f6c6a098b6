"""The hierarchical proposal's networks against their formulas, member by member in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hiwae_jax import nn

C, D, D0, H, K = 6, 2, 4, 16, 3
SIZES: dict[str, int] = {
    "context_features": C,
    "latent_features": D,
    "base_features": D0,
    "hidden_features": H,
}
MEMBERS: dict[str, Any] = {"per_member": True, "num_samples": K}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def elu(u: np.ndarray) -> np.ndarray:
    return np.where(u > 0, u, np.expm1(np.minimum(u, 0)))


def gaussian(params: Any, context: np.ndarray, z: np.ndarray, outputs: slice) -> tuple[np.ndarray, np.ndarray]:
    """Layer by layer as in appendix D, of some outputs: the parameters taken apart where their layers end."""
    of_z, of_hidden, kernel, bias = (
        np.asarray(leaf[...], np.float64)
        for leaf in (params["of_z"], params["of_hidden"], *(params["of_context"][name] for name in ("kernel", "bias")))
    )
    F = of_z.shape[1] - H
    ends = np.cumsum([H, F, F, F, H, F])
    conditioned = np.split(context @ kernel + bias, ends)
    hidden_gain, skip_gain, loc_gain, raw_gain, hidden_bias, loc_bias, raw_bias = conditioned

    def layer(x: np.ndarray, v: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return gain * (x @ (v / np.linalg.norm(v, axis=0)))

    hidden = elu(layer(z, of_z[:, :H], hidden_gain) + hidden_bias)
    loc = layer(hidden, of_hidden[:, :F], loc_gain) + loc_bias + layer(z, of_z[:, H:], skip_gain)
    raw = layer(hidden, of_hidden[:, F:], raw_gain) + raw_bias
    return loc[outputs], raw[outputs]


@pytest.fixture(scope="module")
def conditionals(initialise: Any) -> Any:
    _, params, apply = initialise(lambda rngs: nn.HierarchicalConditionals(num_samples=K, **SIZES, rngs=rngs))
    return params, jax.jit(apply)


@pytest.fixture(scope="module")
def reverse(initialise: Any) -> Any:
    _, params, apply = initialise(lambda rngs: nn.ReverseModel(**SIZES, rngs=rngs))
    return params, jax.jit(apply)


@pytest.fixture(scope="module")
def member_reverse(initialise: Any) -> Any:
    build = lambda rngs: nn.ReverseModel(per_member=True, num_samples=K, **SIZES, rngs=rngs)
    _, params, apply = initialise(build)
    return params, jax.jit(apply)


def test_each_conditional_is_its_formula(conditionals: Any) -> None:
    params, apply = conditionals
    context, z0 = draw(C), draw(D0, seed=1)
    loc, scale = apply(params, context, z0)
    for j in range(K):
        expected_loc, raw = gaussian(params["network"], context, z0, slice(j * D, (j + 1) * D))
        np.testing.assert_allclose(loc[j], expected_loc, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scale[j], np.logaddexp(0, raw) + 1e-4, rtol=1e-4)


def test_members_differ_from_each_other_and_read_both_arguments(conditionals: Any) -> None:
    params, apply = conditionals
    loc, scale = apply(params, draw(C), draw(D0, seed=1))
    for other in range(1, K):
        assert np.all(np.abs(loc[0] - loc[other]) > 1e-4)
        assert np.all(np.abs(scale[0] - scale[other]) > 1e-5)
    assert np.all(apply(params, draw(C, seed=5), draw(D0, seed=1))[0] != loc)
    assert np.all(apply(params, draw(C), draw(D0, seed=6))[0] != loc)


@pytest.mark.parametrize("per_member", [False, True])
def test_each_reverse_row_is_its_formula(per_member: bool, reverse: Any, member_reverse: Any) -> None:
    params, apply = member_reverse if per_member else reverse
    context, z = draw(C), draw(K, D, seed=1)
    loc, scale = apply(params, context, z)
    to_contexts = params["member_contexts"]
    v = np.asarray(to_contexts["direction"][...], np.float64)
    v = v / np.linalg.norm(v, axis=0)
    for j in range(K):
        member = slice(j * C, (j + 1) * C) if per_member else slice(None)
        own = context @ v[:, member] * np.asarray(to_contexts["gain"][...])[member]
        own = own + np.asarray(to_contexts["bias"][...])[member]
        expected_loc, log_variance = gaussian(params["network"], own, z[j], slice(None))
        np.testing.assert_allclose(loc[j], expected_loc, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scale[j], np.exp(10 * np.tanh(log_variance / 20)), rtol=1e-4)


def test_shared_reverse_treats_every_row_alike(reverse: Any) -> None:
    params, apply = reverse
    context, z = draw(C), draw(5, D, seed=1)
    loc, scale = apply(params, context, z)
    order = np.array([3, 0, 4, 1, 2])
    permuted_loc, permuted_scale = apply(params, context, z[order])
    np.testing.assert_allclose(permuted_loc, loc[order], rtol=1e-6)
    np.testing.assert_allclose(permuted_scale, scale[order], rtol=1e-6)
    for rows in (1, 2):
        few_loc, few_scale = apply(params, context, z[:rows])
        np.testing.assert_allclose(few_loc, loc[:rows], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(few_scale, scale[:rows], rtol=1e-5, atol=1e-6)
    same = apply(params, context, np.repeat(z[:1], 4, axis=0))[0]
    np.testing.assert_allclose(same, np.repeat(same[:1], 4, axis=0), rtol=1e-6)


def test_member_reverse_tells_equal_samples_apart(member_reverse: Any) -> None:
    params, apply = member_reverse
    loc, scale = apply(params, draw(C), np.repeat(draw(1, D, seed=1), K, axis=0))
    for other in range(1, K):
        assert np.all(np.abs(loc[0] - loc[other]) > 1e-4)
        assert np.all(np.abs(scale[0] - scale[other]) > 1e-5)


def test_gains_and_biases_start_where_they_should_and_spread_by_a_tenth(initialise: Any) -> None:
    sizes = {"context_features": 50, "latent_features": 40, "base_features": 7, "hidden_features": 60}
    _, params, _ = initialise(lambda rngs: nn.ReverseModel(**sizes, rngs=rngs))
    of_context = params["network"]["of_context"]
    values = draw(500, 50) @ np.asarray(of_context["kernel"][...]) + np.asarray(of_context["bias"][...])
    head = 0.1 * 1.2452
    starts = [(60, 1.0, 1.0), (7, 0.1, 0.1), (14, head, head), (60, 0.0, 1.0), (14, 0.0, 1.0)]
    for part, (_, start, strength) in zip(np.split(values, [60, 67, 81, 141], axis=1), starts, strict=True):
        np.testing.assert_allclose([part.mean(), part.std()], [start, 0.1 * strength], atol=0.015 * strength)


def test_reverse_model_in_two_parts() -> None:
    models = [nn.ReverseModel(**SIZES, **options, rngs=nnx.Rngs(0)) for options in ({}, MEMBERS)]
    context, z = jnp.asarray(draw(C)), jnp.asarray(draw(K, D, seed=1))
    for model, other_model in zip(models, models[::-1], strict=True):
        given = model.given(context)
        for one, other in zip(model.at(given, z), model(context, z), strict=True):
            np.testing.assert_array_equal(one, other)
        with pytest.raises(TypeError, match="given: expected what given"):
            other_model.at(given, z)
    with pytest.raises(ValueError, match="given must have shape"):
        models[1].at(given[:-1], z)


def test_wrong_numbers_of_members_are_errors(member_reverse: Any) -> None:
    params, apply = member_reverse
    with pytest.raises(ValueError, match=r"z must have shape \[3, 2\] for one example, got \[4, 2\]"):
        apply(params, draw(C), draw(4, D))
    with pytest.raises(ValueError, match="per_member=True needs num_samples"):
        nn.ReverseModel(per_member=True, **SIZES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="leave out num_samples, got 3"):
        nn.ReverseModel(num_samples=3, **SIZES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        nn.HierarchicalConditionals(num_samples=0, **SIZES, rngs=nnx.Rngs(0))
