"""What every module promises: shapes, parameter counts, use in pure functions, bfloat16, messages."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hiwae_jax import nn


def linear(i: int, o: int) -> int:
    return i * o + o


def weight_norm(i: int, o: int, *, bias: bool = True) -> int:
    return i * o + o + (o if bias else 0)


def conditional(i: int, o: int, c: int, *, bias: bool = True) -> int:
    return i * o + linear(c, o) + (linear(c, o) if bias else 0)


def residual(i: int, o: int) -> int:
    return weight_norm(i, o) + weight_norm(o, o, bias=False) + weight_norm(i, o)


def residual_conv(i: int, o: int) -> int:
    return (9 * i * o + 2 * o) + (9 * o * o + o) + (9 * i * o + 2 * o)


def conditional_gaussian(i: int, o: int, c: int, h: int) -> int:
    return conditional(i, h, c) + 2 * conditional(h, o, c) + conditional(i, o, c, bias=False)


def encoder(c: int) -> int:
    blocks = [(1, 16), (16, 16), (16, 32), (32, 32), (32, 32)]
    return sum(residual_conv(*block) for block in blocks) + residual(512, c)


def decoder(d: int, c: int) -> int:
    blocks = [(32, 32), (32, 32), (32, 16), (16, 16), (16, 1)]
    return residual(d, c) + residual(c, 512) + sum(residual_conv(*block) for block in blocks)


class Case(NamedTuple):
    build: Callable[..., nnx.Module]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    parameters: int
    argument: str  # the last argument's name, as the error message gives it


C, D, D0, H, K = 6, 2, 4, 8, 3
SIZES: dict[str, int] = {
    "context_features": C,
    "latent_features": D,
    "base_features": D0,
    "hidden_features": H,
}
CASES = {
    "weight_norm": Case(lambda **kw: nn.WeightNormLinear(3, 5, **kw), ((3,),), ((5,),), weight_norm(3, 5), "x"),
    "conv": Case(lambda **kw: nn.WeightNormConv(2, 3, stride=2, **kw), ((7, 7, 2),), ((4, 4, 3),), 54 + 3 + 3, "x"),
    "conditional": Case(
        lambda **kw: nn.ConditionalWeightNormLinear(3, 5, C, **kw),
        ((3,), (C,)),
        ((5,),),
        conditional(3, 5, C),
        "context",
    ),
    "residual": Case(lambda **kw: nn.ResidualLinear(3, 5, **kw), ((3,),), ((5,),), residual(3, 5), "x"),
    "residual_conv": Case(
        lambda **kw: nn.ResidualConv(2, 3, stride=2, **kw),
        ((7, 7, 2),),
        ((4, 4, 3),),
        residual_conv(2, 3),
        "x",
    ),
    "gaussian": Case(lambda **kw: nn.GaussianHead(C, D, **kw), ((C,),), ((D,), (D,)), 2 * residual(C, D), "context"),
    "linear_gaussian": Case(
        lambda **kw: nn.LinearGaussianHead(H, D, **kw), ((H,),), ((D,), (D,)), 2 * linear(H, D), "features"
    ),
    "conditionals": Case(
        lambda **kw: nn.HierarchicalConditionals(num_samples=K, **SIZES, **kw),
        ((C,), (D0,)),
        ((K, D), (K, D)),
        conditional_gaussian(D0, K * D, C, H),
        "z0",
    ),
    "reverse": Case(
        lambda **kw: nn.ReverseModel(**SIZES, **kw),
        ((C,), (K, D)),
        ((K, D0), (K, D0)),
        weight_norm(C, C) + conditional_gaussian(D, D0, C, H),
        "z",
    ),
    "reverse_per_member": Case(
        lambda **kw: nn.ReverseModel(per_member=True, num_samples=K, **SIZES, **kw),
        ((C,), (K, D)),
        ((K, D0), (K, D0)),
        weight_norm(C, K * C) + conditional_gaussian(D, D0, C, H),
        "z",
    ),
    "conv_encoder": Case(lambda **kw: nn.ConvEncoder(C, **kw), ((784,),), ((C,),), encoder(C), "x"),
    "conv_decoder": Case(lambda **kw: nn.ConvDecoder(D, C, **kw), ((D,),), ((784,),), decoder(D, C), "z"),
    "mlp_encoder": Case(
        lambda **kw: nn.MLPEncoder(9, (H, 5), **kw), ((9,),), ((5,),), linear(9, H) + linear(H, 5), "x"
    ),
    "mlp_decoder": Case(
        lambda **kw: nn.MLPDecoder(D, 9, (H, 5), **kw),
        ((D,),),
        ((9,),),
        linear(D, H) + linear(H, 5) + linear(5, 9),
        "z",
    ),
}
GAUSSIAN = {"gaussian", "linear_gaussian", "conditionals", "reverse", "reverse_per_member"}


@pytest.fixture(scope="module")
def initialised(initialise: Any) -> Callable[[str], Any]:
    return functools.cache(lambda name: initialise(lambda rngs: CASES[name].build(rngs=rngs)))


def as_tuple(output: Any) -> tuple[jax.Array, ...]:
    return output if isinstance(output, tuple) else (output,)


def count(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", CASES)
def test_batched_gradients_are_finite_and_reach_every_parameter(name: str, initialised: Any) -> None:
    case = CASES[name]
    _, params, apply = initialised(name)
    assert count(params) == case.parameters
    rng = np.random.default_rng(0)
    batch = [jnp.asarray(rng.standard_normal((2, *shape)), jnp.float32) for shape in case.inputs]

    @jax.jit
    def value_and_grad(params: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs = as_tuple(jax.vmap(apply, in_axes=(None, *[0] * len(batch)))(params, *batch))
            return sum(jnp.sum(jnp.sin(output)) for output in outputs), outputs

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, outputs), gradient = value_and_grad(params)
    assert tuple(output.shape[1:] for output in outputs) == case.outputs
    assert all(output.dtype == jnp.float32 for output in outputs)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(np.asarray(leaf) != 0), path


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_close_to_float32(name: str, initialised: Any) -> None:
    case = CASES[name]
    _, params, apply = initialised(name)
    # The graph definition carries the type, so the same float32 parameters serve both.
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: case.build(dtype=jnp.bfloat16, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(1)
    inputs = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in case.inputs]
    both = jax.jit(lambda p, *inputs: (apply(p, *inputs), nnx.merge(graphdef, p)(*inputs)))
    for wide, narrow in zip(*map(as_tuple, both(params, *inputs)), strict=True):
        assert narrow.dtype == (jnp.float32 if name in GAUSSIAN else jnp.bfloat16)
        narrow = np.asarray(narrow, np.float32)
        np.testing.assert_allclose(narrow, wide, atol=0.05 * (1 + np.abs(wide).max()))
        assert np.any(narrow != np.asarray(wide))


@pytest.mark.parametrize("name", CASES)
def test_param_dtype_and_repeatable_structure(name: str) -> None:
    build = CASES[name].build
    first, params = nnx.split(nnx.eval_shape(lambda: build(param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))), nnx.Param)
    second, _ = nnx.split(nnx.eval_shape(lambda: build(param_dtype=jnp.bfloat16, rngs=nnx.Rngs(1))), nnx.Param)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    # Equal definitions share one compiled program where they are static arguments.
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("name", CASES)
def test_wrong_shape_is_an_error_that_names_the_argument(name: str) -> None:
    case = CASES[name]
    inputs = [jnp.zeros(shape) for shape in case.inputs]
    for wrong_shape in ((2, *case.inputs[-1]), (*case.inputs[-1][:-1], 1)):
        wrong = [*inputs[:-1], jnp.zeros(wrong_shape)]
        got = ", ".join(map(str, wrong_shape))
        message = rf"^{case.argument} must have shape \[.*\] for one example, got \[{got}\]"
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda *args: case.build(rngs=nnx.Rngs(0))(*args), *wrong)


def test_full_size_parameter_counts() -> None:
    """The sizes of the MNIST experiments: z 32, context 450, hidden 1,920, K = 5."""

    def size(build: Callable[[], nnx.Module]) -> int:
        return count(nnx.state(nnx.eval_shape(build), nnx.Param))

    sizes = {"context_features": 450, "latent_features": 32, "base_features": 32}
    assert size(lambda: nn.ConvEncoder(rngs=nnx.Rngs(0))) == encoder(450)
    assert size(lambda: nn.ConvDecoder(32, rngs=nnx.Rngs(0))) == decoder(32, 450)
    assert size(lambda: nn.HierarchicalConditionals(num_samples=5, **sizes, rngs=nnx.Rngs(0))) == conditional_gaussian(
        32, 160, 450, 1920
    )
    assert size(lambda: nn.ReverseModel(**sizes, rngs=nnx.Rngs(0))) == weight_norm(450, 450) + conditional_gaussian(
        32, 32, 450, 1920
    )


def test_public_names_are_sorted_and_exist() -> None:
    assert nn.__all__ == sorted(nn.__all__)
    assert all(hasattr(nn, name) for name in nn.__all__)
