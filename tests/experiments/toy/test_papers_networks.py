"""The toy networks of the paper's appendix D: their parameters, where they start, and what is refused with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy import figures
from experiments.toy.problem import Settings, make_problem
from experiments.toy.training import _initial_params

K, HIDDEN = 3, 5
SETTINGS = Settings(networks="paper", hidden=HIDDEN, num_samples=K, seeds=2)


def shapes_of(settings):
    """The shapes of all parameters of a seed, by their path."""
    params = jax.eval_shape(make_problem(settings).init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(part.key) for part in path if hasattr(part, "key")): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize(("alpha", "contexts"), [(0.0, K), (1.0, 1)])
def test_the_parameters_are_those_of_appendix_d(alpha, contexts):
    hidden_and_skip = HIDDEN + 2 * K
    expected = {
        "base.loc": (2,),
        "base.raw": (2,),
        # W_h with the skip W_s, and W_mu with W_sigma, for all members.
        "conditionals.network.of_z": (2, hidden_and_skip),
        "conditionals.network.of_hidden": (HIDDEN, 2 * 2 * K),
        "reverse.network.of_z": (2, HIDDEN + 2),
        "reverse.network.of_hidden": (HIDDEN, 2 * 2),
        # The context of each member, or one for all.
        "reverse.member_contexts.direction": (HIDDEN, HIDDEN * contexts),
        "reverse.member_contexts.gain": (HIDDEN * contexts,),
        "reverse.member_contexts.bias": (HIDDEN * contexts,),
    }
    # Gains and biases as functions of the context: a gain for every output, and a bias for all but the skip's.
    for name, outputs in (("conditionals", 2 * K), ("reverse", 2)):
        numbers = HIDDEN + outputs + 2 * outputs + HIDDEN + 2 * outputs
        expected |= {
            f"{name}.network.of_context.kernel": (HIDDEN, numbers),
            f"{name}.network.of_context.bias": (numbers,),
        }
    assert shapes_of(SETTINGS._replace(alpha=alpha)) == expected


def test_the_bound_is_finite_at_the_start_and_every_parameter_counts():
    problem = make_problem(SETTINGS)
    bound = problem.make_bound(gradient=SETTINGS.gradient)

    @jax.jit
    def of_seeds(params):
        def mean(params):
            keys = jax.random.split(jax.random.key(1), 200)
            return jnp.mean(jax.vmap(bound, in_axes=(None, None, 0))(params, jnp.zeros(()), keys))

        return jax.vmap(jax.value_and_grad(mean))(params)

    params = _initial_params(SETTINGS, problem)
    values, gradients = of_seeds(params)
    # Below log Z, and near the bound of standard normal samples: every network starts there.
    assert np.all((values > -20.0) & (values < 3.30983))
    assert values[0] != values[1]
    for leaf in jax.tree.leaves(gradients):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


def test_a_step_moves_a_gain_no_further_than_a_parameter_of_its_own():
    """A step of equal size of all weights of the constant context does what one of the bias beside them does."""
    problem = make_problem(SETTINGS)
    params = problem.init(jax.random.key(0))

    def samples_after(moved):
        def move(path, leaf):
            name = ".".join(str(part.key) for part in path if hasattr(part, "key"))
            return leaf + 0.1 if name == f"conditionals.network.of_context.{moved}" else leaf

        changed = jax.tree_util.tree_map_with_path(move, params)
        return problem.draw(changed, jnp.zeros(()), jax.random.key(1)).z

    np.testing.assert_allclose(samples_after("kernel"), samples_after("bias"), rtol=1e-5)
    assert np.abs(samples_after("kernel") - samples_after("nothing")).min() > 0.01


def test_the_settings_of_the_figures_have_the_networks_and_old_fits_keep_their_names():
    rows = figures.dispersion_settings(25, "paper")
    assert {(row.check().networks, row.reverse) for row in rows} == {("paper", "embedded")}
    assert [row.networks for row in figures.proposals_settings(25, "paper")] == ["small", "paper", "paper", "paper"]
    assert "networks" not in Settings().written()
    assert list(Settings().written()) == list(Settings._fields[:-1])
    assert Settings(**SETTINGS.written()) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z0": "markov"}, "networks: z0='markov' has none of the networks of the paper"),
        ({"reverse": "heads"}, "reverse: the networks of the paper give each member a context"),
        ({"networks": "conv"}, "networks: expected 'small' or 'paper', got 'conv'"),
    ],
)
def test_what_the_papers_networks_have_not_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SETTINGS._replace(**changes).check()
