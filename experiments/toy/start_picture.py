"""The picture on the first page of the documentation: what VAE, IWAE and H-IWAE make of the toy target.

    python -m experiments.toy.start_picture      # docs/start.png, a minute on two cores

Each proposal is trained for 20,000 steps at a rate that falls from 2e-3 to 0, one seed. The gap is log Z, by
quadrature, minus the bound, from 100,000 fresh draws of K samples.
"""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from experiments.shared.figures import Axes, plt, save
from experiments.toy.figures import LONG
from experiments.toy.problem import Problem, Settings, log_normaliser, log_target, make_problem
from experiments.toy.training import evaluate, train
from hiwae_jax import nn

PATH = pathlib.Path(__file__).resolve().parents[2] / "docs" / "start.png"
EXTENT, SHOWN = 5.0, 900
COLORS = ("#d95f02", "#1b9e77", "#7570b3")


def gaussian_problem(settings: Settings) -> Problem:
    """K samples of one Gaussian, whose location and scale are learned."""

    def conditional(params, x):
        return params["loc"], nn.positive_scale(params["raw"])

    def log_joint(params, x, z):
        return log_target(z)

    proposal = hj.independent(conditional, num_samples=settings.num_samples)
    return Problem(
        init=lambda key: {"loc": 0.1 * jax.random.normal(key, (2,)), "raw": jnp.ones(2)},
        log_joint=log_joint,
        proposal=proposal,
        weighting=hj.uniform_weighting(),
        make_bound=functools.partial(hj.make_bound, log_joint, proposal),
        log_weights=hj.make_log_weights(log_joint, proposal),
        draw=proposal.draw,
    )


def fitted(settings: Settings, problem: Problem, *, log_z: float) -> tuple[float, np.ndarray]:
    """The gap of a trained proposal, and samples [draws, K, 2]."""
    params = train(settings, problem)
    gap = evaluate(settings, problem, params, log_z=log_z)["gap"][0]
    one = jax.tree.map(lambda leaf: leaf[0], params)
    keys = jax.random.split(jax.random.key(3), SHOWN)
    return gap, np.asarray(jax.vmap(lambda key: problem.draw(one, jnp.zeros(()), key).z)(keys))


def panel(axis: Axes, title: str, samples: np.ndarray | None, colors: tuple[str, ...]) -> None:
    """The target's contours, and the samples in the colours of their members."""
    line = jnp.linspace(-EXTENT, EXTENT, 200)
    density = jnp.exp(jax.vmap(jax.vmap(log_target))(jnp.stack(jnp.meshgrid(line, line), axis=-1)))
    if samples is None:
        axis.imshow(density, origin="lower", extent=(-EXTENT, EXTENT) * 2, cmap="Greys")
    else:
        axis.contour(line, line, density, levels=[0.1, 0.4], colors="0.4", linewidths=0.9)
        for member in range(samples.shape[1]):
            axis.scatter(*samples[:, member].T, s=3, linewidths=0, alpha=0.5, color=colors[member % len(colors)])
    axis.set_title(title, fontsize=10)
    axis.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal", xticks=(), yticks=())


def main() -> None:
    """Train the three proposals and draw the picture."""
    log_z = log_normaliser()
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
    panel(axes[0], f"target, log Z = {log_z:.2f}", None, ())
    one = Settings(seeds=1, alpha=1.0, **LONG)
    for axis, name, settings, make, colors in (
        (axes[1], "VAE: 1 sample of one Gaussian", one._replace(num_samples=1), gaussian_problem, COLORS[2:]),
        (axes[2], "IWAE: 3 samples of one Gaussian", one, gaussian_problem, COLORS[2:]),
        (axes[3], "H-IWAE: 3 members share a $z_0$", one, make_problem, COLORS),
    ):
        gap, samples = fitted(settings, make(settings), log_z=log_z)
        print(f"{name}: {gap:.4f}")
        assert math.isfinite(gap)
        panel(axis, f"{name}\nlog Z - bound = {gap:.2f}", samples, colors)
    save(figure, PATH, dpi=110, tight=True)


if __name__ == "__main__":
    main()
