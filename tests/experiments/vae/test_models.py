"""Every model by field: how its samples are drawn, which reverse models it has, and what shares the target out."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hiwae_jax as hj
from experiments.vae import layout, sweeps
from experiments.vae.models import MODELS, alpha_of, make_model, mixture_size, title
from experiments.vae.settings import Settings

K, LATENT, PROPOSAL_HIDDEN = 3, 4, 8
SETTINGS = Settings(latent=LATENT, hidden=(16, 12, 10), proposal_hidden=PROPOSAL_HIDDEN, num_samples=K)

# Samples of one example; the layout of the members; whether each sample has a z_0 of its own, None without z_0; alpha;
# conditionals, and reverse models. IWAE(h) has one conditional and one reverse model, and K values of z_0.
FIELDS = {
    "vae": (1, "one", None, 0.0, None, None),
    "iwae": (K, "one", None, 0.0, None, None),
    "iwae-h": (K, "own", True, 0.0, 1, 1),
    "hiwae-0": (K, "rows", False, 0.0, K, K),
    "hiwae-1": (K, "rows", False, 1.0, K, 1),
    "hiwae-3": (K, "rows", False, 3.0, K, 1),
    "hiwae-0.5": (K, "rows", False, 0.5, K, 1),
}


def make(name):
    model = make_model(SETTINGS._replace(model=name), pixel_mean=np.full(64, 0.3))
    return model, jax.eval_shape(model.init, jax.random.key(0))


def raw_shape(param):
    return param.get_raw_value().shape


@pytest.mark.parametrize("name", FIELDS)
def test_every_model_by_field(name):
    num_samples, layout, own_z0, alpha, conditionals, reverse_models = FIELDS[name]
    model, params = make(name)
    members = model.proposal.members
    assert members.layout == layout
    assert mixture_size(name) is None
    assert model.proposal.equal_members == (layout in ("one", "own"))
    assert (model.weighting.alpha, model.weighting.logits) == (alpha, None)
    assert alpha_of(name) == (alpha if name.startswith("hiwae") else None)
    draw = jax.eval_shape(model.proposal.draw, params, jnp.zeros(64), jax.random.key(0))
    assert draw.z.shape == (num_samples, LATENT)
    if own_z0 is None:
        assert draw.z0 is None
        assert not {"conditionals", "reverse"} & set(params.inference)
        return
    assert members.own_z0 == own_z0
    assert draw.z0.shape == (num_samples, LATENT)
    # Location and raw scale of every conditional. A reverse model of a member's own has a context of its own.
    heads = params.inference["conditionals"]["network"]["of_hidden"]
    assert raw_shape(heads) == (PROPOSAL_HIDDEN, 2 * conditionals * LATENT)
    contexts = params.inference["reverse"]["member_contexts"]["direction"]
    assert raw_shape(contexts) == (10, 10 * reverse_models)


def test_a_mixture_has_a_head_for_each_member_and_weighs_with_all():
    model, shapes = make("mixture-7")
    assert (mixture_size("mixture-7"), alpha_of("mixture-7"), title("mixture-7")) == (7, None, "Mixture of 7")
    assert not {"conditionals", "reverse"} & set(shapes.inference)
    params, x, key = jax.jit(model.init)(jax.random.key(0)), jnp.linspace(0.0, 1.0, 64), jax.random.key(1)
    draw = model.proposal.draw(params, x, key)
    assert draw.z.shape == (K, LATENT)
    assert len(set(np.asarray(draw.parameters.picks).tolist())) == K  # without replacement

    # The head by hand: rows of the linear layers are the members.
    numbers = jax.tree.map(np.asarray, nnx.to_pure_dict(params.inference))
    features = np.asarray(x)
    for layer in numbers["encoder"]["layers"].values():
        features = np.tanh(features @ layer["kernel"] + layer["bias"])
    heads = numbers["base"]
    loc, raw = (features @ heads[part]["kernel"] + heads[part]["bias"] for part in ("loc", "raw_scale"))
    loc, scale = np.reshape(loc, (7, LATENT)), np.reshape(np.log1p(np.exp(raw)) + 1e-4, (7, LATENT))
    z = np.asarray(draw.z)[:, None]
    densities = np.sum(-0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=-1)
    log_q = np.logaddexp.reduce(densities, axis=1) - np.log(7)
    log_joint = np.asarray(jax.vmap(lambda z: model.log_joint(params, x, z))(draw.z))
    np.testing.assert_allclose(model.log_weights()(params, x, key), log_joint - log_q - np.log(K), rtol=2e-5, atol=2e-4)


def test_all_alphas_are_one_model_at_one_sample():
    def of_one(name):
        model = make_model(SETTINGS._replace(model=name, num_samples=1), pixel_mean=np.full(64, 0.3))
        return model, jax.eval_shape(model.init, jax.random.key(0))

    models = [of_one(name) for name in ("hiwae-0", "hiwae-3")]
    first, shapes = models[0]
    for _, other in models[1:]:
        chex.assert_trees_all_equal_shapes_and_dtypes(other, shapes)

    # One program: parameters of the first model, and the objective of each with them.
    @jax.jit
    def objectives(key):
        params = first.init(key)
        return [
            jax.value_and_grad(hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting))(
                params, jnp.ones(64), key
            )
            for model, _ in models
        ]

    one, *others = objectives(jax.random.key(0))
    for other in others:
        chex.assert_trees_all_close(other, one, rtol=1e-4, atol=1e-5)


def test_the_decoder_has_the_layers_of_the_encoder_in_reverse():
    _, params = make("iwae")
    encoder, decoder = (
        [raw_shape(leaf) for leaf in jax.tree.leaves(tree, is_leaf=lambda leaf: hasattr(leaf, "get_raw_value"))]
        for tree in (params.inference["encoder"], params.generative["decoder"])
    )
    kernels = [[shape for shape in shapes if len(shape) == 2] for shapes in (encoder, decoder)]
    assert kernels == [[(64, 16), (16, 12), (12, 10)], [(LATENT, 10), (10, 12), (12, 16), (16, 64)]]


@pytest.mark.parametrize("name", [*MODELS, "mixture-7"])
def test_every_model_has_its_weights_and_gradients(name):
    model, params = make(name)
    bound = hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting)
    arguments = params, jnp.zeros(64), jax.random.key(0)
    assert jax.eval_shape(model.log_weights(), *arguments).shape == (1 if name == "vae" else K,)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(jax.grad(bound), *arguments), params)
    assert {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params.generative)} == {"decoder"}


def test_the_decoder_starts_at_the_mean_of_the_pixels():
    mean = np.linspace(0.1, 0.9, 64)
    model = make_model(SETTINGS._replace(model="vae"), pixel_mean=mean)
    params = jax.jit(model.init)(jax.random.key(0))
    bias = [leaf for leaf in jax.tree.leaves(params.generative) if leaf.shape == (64,)]
    assert any(np.allclose(leaf, np.log(mean / (1 - mean)), rtol=1e-4) for leaf in bias)


def test_the_conv_model_has_the_sizes_of_the_paper():
    (settings,) = sweeps.expand(sweeps.SWEEPS["mnist"], {"model": ["hiwae-0"], "num_samples": [5]})
    model = make_model(settings.check(), pixel_mean=np.full(784, 0.1))
    params = jax.eval_shape(model.init, jax.random.key(0))
    network = params.inference["conditionals"]["network"]
    assert raw_shape(network["of_hidden"]) == (1920, 2 * 5 * 32)
    # To a gain for every output of every layer, skip included, and a bias for all but the skip's.
    assert raw_shape(network["of_context"]["kernel"]) == (450, 2 * 1920 + 5 * (5 * 32))
    assert jax.eval_shape(model.log_weights(), params, jnp.zeros(784), jax.random.key(0)).shape == (5,)
    assert settings.warmup == 50_000
    assert settings.learning_rate == 5e-5


@pytest.mark.parametrize(
    "name",
    [
        "gan",
        "hiwae--1",
        "hiwae-",
        "hiwae-inf",
        "hiwae-x",
        "iwae-1",
        "mixture-0",
        "mixture-2000",
        "mixture-x",
        "mixture-",
    ],
)
def test_what_is_no_model_is_refused(name):
    with pytest.raises(ValueError, match=f"model: expected vae, iwae.*, got '{name}'"):
        alpha_of(name)


def test_the_samples_of_a_mixture_cannot_be_split_over_devices():
    mesh = types.SimpleNamespace(shape={"data": 2, "sample": 4})
    settings = Settings(model="mixture-12", num_samples=8)
    with pytest.raises(ValueError, match=r"samples of mixture-12 cannot be split over devices; use .* --mesh data=8"):
        layout.check(settings, mesh)
    layout.check(settings, types.SimpleNamespace(shape={"data": 8, "sample": 1}))
    layout.check(settings._replace(model="hiwae-1"), mesh)
