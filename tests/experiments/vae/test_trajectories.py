"""Training in pieces is the training of the whole, and a seed does not know of the others."""

import itertools
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np

from experiments.vae import images, training
from experiments.vae.models import make_model, of_one
from experiments.vae.settings import Settings
from tests.experiments.vae import known_models


def test_pieces_give_the_trajectory_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEPS_A_CALL", 6)
    settings = Settings(num_samples=2, steps=18, batch_size=4, warmup=8, seeds=2, encoder_updates=2)
    model, data = known_models.quadratic(), known_models.grey_data()
    whole = training.train(model, settings, data, tmp_path / "whole")
    assert whole.finished
    # The proposal's parameters are updated twice in each minibatch, the decoder's once.
    np.testing.assert_array_equal(whole.state.optimizer.generative.count, [18, 18])
    np.testing.assert_array_equal(whole.state.optimizer.inference.count, [36, 36])

    # A clock that moves a second whenever it is read: some calls fit before the limit, and the next ones do not.
    ticks = itertools.count()
    monkeypatch.setattr(training, "time", types.SimpleNamespace(monotonic=lambda: float(next(ticks))))
    pieces, calls = 0, []
    while not calls or calls[-1] < 3:
        deadline = float(next(ticks)) + 6.0
        piece = training.train(model, settings, data, tmp_path / "pieces", deadline=deadline)
        calls.append(int(piece.state.calls[0]))
        pieces += 1
        assert piece.finished == (calls[-1] == 3)
    assert pieces > 1
    assert piece.seconds > 12.0  # of all pieces
    chex.assert_trees_all_equal(piece.state, whole.state)


def test_a_seed_starts_alike_beside_others(digits):
    settings = Settings(latent=4, hidden=(16, 16), num_samples=2)
    model = make_model(settings, pixel_mean=images.pixel_mean(digits))
    plan = training.make_plan(settings, len(digits.train))
    alone, both = (
        jax.jit(lambda seeds: training.init_states(model, plan, seeds))(seeds)
        for seeds in (jnp.array([1]), jnp.array([0, 1]))
    )
    chex.assert_trees_all_equal(of_one(both, 1), of_one(alone, 0))
    leaves = [leaf for leaf in jax.tree.leaves(both.params) if np.ndim(leaf) == 3]
    assert len(leaves) >= 5  # the kernels
    assert all(np.max(np.abs(leaf[0] - leaf[1])) > 1e-3 for leaf in leaves)
    chex.assert_tree_all_finite(both.params)
