"""What `test_annotations.py` runs in a process of its own, where beartype checks every annotation of the library.

The import hook has to be there before the library is imported. Bounds and gradients are traced, and nothing is
compiled.
"""

import jax
import jax.numpy as jnp
import jaxtyping

K, D, D0 = 3, 4, 2
PARAMS = {"loc": jnp.zeros(D), "rows": jnp.zeros((K, D)), "z0": jnp.zeros(D0), "tril": jnp.stack([jnp.eye(K)] * D)}
X, KEY = jnp.ones(D), jax.random.key(0)


def log_joint(params, x, z):
    """Of a vector, or of a pytree with the leaves "a" and "b"."""
    vector = jnp.concatenate([z["a"], z["b"]]) if isinstance(z, dict) else z
    return -0.5 * jnp.sum((x - vector) ** 2)


def conditional(params, x):
    return params["loc"] + x, jnp.ones(D)


def tree(params, x):
    return {"a": params["loc"][:1], "b": params["loc"][1:]}, {"a": jnp.ones(1), "b": jnp.ones(D - 1)}


def rows(params, x):
    return params["rows"] + x[None], jnp.ones((K, D))


def base(params, x):
    return params["z0"], jnp.ones(D0)


def conditionals(params, x, z0):
    return params["rows"] * jnp.sum(z0), jnp.ones((K, D))


def reverse(params, x, z):
    return z[:, :D0] + params["z0"][None], jnp.ones((len(z), D0))


def step(params, x, z, number):
    return z + params["loc"], jnp.ones(D)


def proposals(hj):
    """By name, with the arguments of `make_bound` that take the way through most of the code."""
    balance = {"weighting": hj.power_heuristic(1.0)}
    flow = hj.affine_map(lambda params, x: (params["loc"], jnp.ones(D)))
    learned = hj.learned_weighting(lambda params, x, z, z0: params["rows"] @ z)
    own = hj.hierarchical(base, conditionals, reverse, shared=False)
    return {
        "pytree": (hj.independent(tree, num_samples=K), {"chunk_size": 2}),
        "shared": (hj.hierarchical(base, conditionals, reverse), balance),
        "learned": (own, {"weighting": learned, "backward_samples": 2}),
        "own": (own, {**balance, "gradient": "refilled", "chunk_size": 2, "order": 0.5}),
        "scores": (own, {**balance, "gradient": "score_function"}),
        "further draws": (hj.hierarchical(base, conditionals, reverse, shared=False, reverse_samples=2), {}),
        "student": (hj.defensive(conditional, conditional, num_samples=K, family=hj.student_t(3.0)), balance),
        "correlated": (hj.joint_gaussian(lambda params, x: (params["rows"], params["tril"])), balance),
        "mixture": (hj.mixture(rows, num_samples=2), {}),
        "flow": (hj.flow_chain(conditional, [flow, flow]), balance),
        "markov": (hj.markov(conditional, step, step, num_samples=K), {}),
    }


def main():
    """Trace all of this; then call a function with an array that its annotation excludes."""
    jaxtyping.install_import_hook("hiwae_jax", "beartype.beartype")
    import hiwae_jax as hj

    for proposal, options in proposals(hj).values():
        jax.eval_shape(jax.value_and_grad(hj.make_bound(log_joint, proposal, **options)), PARAMS, X, KEY)
    proposal, options = proposals(hj)["shared"]
    objective = hj.make_annealed_objective(log_joint, log_joint, proposal, free_bits=0.5, **options)
    batched = hj.batched_value_and_grad(objective, draw=objective.draw, chunk_size=2)
    jax.eval_shape(batched, PARAMS, jnp.ones((3, D)), KEY, 0.5)
    evidence = hj.make_log_evidence(hj.make_log_weights(log_joint, proposal), num_draws=12, control_variates=True)
    jax.eval_shape(evidence, PARAMS, X, KEY)
    discrete = hj.make_discrete_bound(
        lambda params, x, z: jnp.sum(z), lambda params, x: params["loc"], num_samples=K, family=hj.bernoulli
    )
    jax.eval_shape(jax.value_and_grad(discrete), PARAMS, X, KEY)
    print("traced")
    try:
        hj.diagonal_gaussian.log_prob((jnp.zeros(2), jnp.ones(2)), jnp.zeros(2, int))
    except jaxtyping.TypeCheckError:
        print("refused")


if __name__ == "__main__":
    main()
