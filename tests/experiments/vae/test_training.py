"""Whole trainings against a second implementation in NumPy, on a model whose objective is known in closed form."""

from typing import NamedTuple

import chex
import jax
import numpy as np

from experiments.vae import images, training
from experiments.vae.settings import Settings
from tests.experiments.vae import known_models

SETTINGS = Settings(
    num_samples=2,
    steps=36,
    batch_size=4,
    learning_rate=0.1,
    encoder_updates=2,
    warmup=20,
    polyak=0.5,
    clip=0.7,
    patience=4,
    seeds=2,
)
STEPS_AN_EPOCH, EPOCHS_A_CALL = 3, 2  # of 14 examples; two sit out


class Adam:
    """Kingma and Ba (2015), algorithm 1, with a gradient that is shortened first."""

    def __init__(self, params):
        """Moments of zero."""
        self.params, self.first, self.second, self.count = params, 0.0, 0.0, 0

    def descend(self, gradient, rate):
        """One step against the gradient of a loss."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.999**self.count)
        self.params = self.params - rate * first / (np.sqrt(second) + 1e-8)


def shortened(largest, *gradients):
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
    return [gradient * min(1.0, largest / norm) for gradient in gradients]


class Expected(NamedTuple):
    """What training of one seed should come to."""

    curves: np.ndarray
    average: tuple
    best: tuple
    best_bound: float


def bound_of(a, g, x):
    return np.mean(-0.5 * np.sum((x - g) ** 2, axis=1) - 0.5 * np.sum((x[:, :2] - a) ** 2, axis=1))


def train_with_numpy(settings, data, seed, calls):
    """The same training in float64; only what is random is drawn by JAX, by the keys of seed, call, epoch and step."""
    inference, generative = (Adam(np.float64(part[seed])) for part in known_models.STARTS)
    average = inference.params, generative.params
    steps = calls * EPOCHS_A_CALL * STEPS_AN_EPOCH
    pixels = images.make_pixels(data)
    monitored = [
        np.float64(part)
        for part in np.split(pixels(np.concatenate(data[:2]), jax.random.split(jax.random.key(1))[0]), [14])
    ]
    best, best_bound, stale, curves, step = average, -np.inf, 0, [], 0
    for call in range(calls):
        for epoch in range(EPOCHS_A_CALL):
            call_key = jax.random.fold_in(jax.random.key(seed), call)
            order_key, noise_key = jax.random.split(jax.random.fold_in(call_key, epoch))
            order = np.asarray(jax.random.permutation(order_key, 14))[:12]
            objectives = []
            for rows, key in zip(order.reshape(3, 4), jax.random.split(noise_key, 3), strict=True):
                x = np.float64(pixels(data.train[rows], jax.random.split(key, 3)[0]))
                beta = min(max((step + 1) / settings.warmup, 1e-4), 1.0)
                t = max(step - steps // 2, 0) / (steps - steps // 2)
                rate = settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * t)))
                # The inference part alone, then both.
                inference.descend(*shortened(settings.clip, beta * (inference.params - x[:, :2].mean(0))), rate)
                of_g, of_a = generative.params - x.mean(0), beta * (inference.params - x[:, :2].mean(0))
                objectives.append(
                    np.mean(-0.5 * np.sum((x - generative.params) ** 2, axis=1))
                    - beta * np.mean(0.5 * np.sum((x[:, :2] - inference.params) ** 2, axis=1))
                    + (1.0 - beta) * np.log(2.0)
                )
                of_g, of_a = shortened(settings.clip, of_g, of_a)
                inference.descend(of_a, rate)
                generative.descend(of_g, rate)
                decay = min(settings.polyak, (step + 1) / (step + 10))
                average = tuple(
                    decay * old + (1 - decay) * part.params
                    for old, part in zip(average, (inference, generative), strict=True)
                )
                step += 1
        bounds = [bound_of(*average, x) for x in monitored]
        curves.append([step, np.mean(objectives), *bounds, 2.0])  # equal weights: both samples count
        is_better = bounds[1] > best_bound and stale < settings.patience // EPOCHS_A_CALL
        best, best_bound = (average, bounds[1]) if is_better else (best, best_bound)
        stale = 0 if is_better else stale + 1
    return Expected(np.array(curves), average, best, best_bound)


def test_training_is_that_of_a_second_implementation(tmp_path, monkeypatch):
    """Two seeds: the first runs out of patience and what it finds later does not count, the second goes on."""
    monkeypatch.setattr(training, "STEPS_A_CALL", STEPS_AN_EPOCH * EPOCHS_A_CALL)
    trained = training.train(known_models.quadratic(), SETTINGS, known_models.grey_data(), tmp_path)
    assert trained.finished
    np.testing.assert_array_equal(trained.state.calls, [6, 6])
    np.testing.assert_array_equal(trained.state.stale >= 2, [True, False])
    for seed in range(2):
        expected = train_with_numpy(SETTINGS, known_models.grey_data(), seed, 6)
        state = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), trained.state)
        np.testing.assert_allclose(state.curves, expected.curves, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.best_bound, expected.best_bound, rtol=1e-4)
        for ours, theirs in ((state.average, expected.average), (state.best, expected.best)):
            np.testing.assert_allclose(ours.inference["a"], theirs[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(ours.generative["g"], theirs[1], rtol=1e-4, atol=1e-4)


def test_training_ends_when_every_seed_is_out_of_patience(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEPS_A_CALL", STEPS_AN_EPOCH * EPOCHS_A_CALL)
    settings = SETTINGS._replace(seeds=1)
    trained = training.train(known_models.quadratic(), settings, known_models.grey_data(), tmp_path)
    assert trained.finished
    # The first call has the best bound, and two more have none.
    bounds = train_with_numpy(settings, known_models.grey_data(), 0, 6).curves[:, 3]
    assert np.argmax(bounds) == 0
    assert int(trained.state.calls[0]) == 3
    np.testing.assert_allclose(trained.state.best_bound, bounds[:1], rtol=1e-4)
    # Going on after the end changes nothing.
    again = training.train(known_models.quadratic(), settings, known_models.grey_data(), tmp_path)
    chex.assert_trees_all_equal(again.state, trained.state)
