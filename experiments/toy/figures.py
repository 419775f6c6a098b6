"""Figures 2, 3, 4 and 7 of Huang et al. (2019) on the toy target; docs/toy.md shows and explains them."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.collections import PathCollection

import hiwae_jax as hj
from experiments.shared import palette
from experiments.shared.figures import Axes, Figure, log_ticks, panels, plt, save
from experiments.shared.provenance import provenance
from experiments.shared.stored import read_json, write_json
from experiments.toy.comparison import compare, comparison_table
from experiments.toy.problem import Settings, learned_logits, log_normaliser, log_target, make_problem
from experiments.toy.training import Fit, fit

PAPER = {"steps": 5_000, "learning_rate": 5e-4, "decay": False}
LONG = {"steps": 20_000, "learning_rate": 2e-3, "decay": True}
TRAININGS = {"as in the paper: 5,000 steps, rate 5e-4": PAPER, "20,000 steps, rate from 2e-3 to 0": LONG}
EARLY = 50  # steps of the upper row of figure 7
SEEDS = 25
EXTENT = 5.5  # how far the plane is shown, to each side
MAP_DRAWS = 160_000  # draws of K samples, from each of which one sample is picked
SCATTERED = 3_000
MEASURES = {
    "bound": "bound (nats)",
    "estimate_log_variance": r"Var$(\log w)$ (nats$^2$)",
    "estimate_variance": r"Var$(w / Z)$",
    "estimate_deviation": r"std$(w / Z)$",
}


def _hierarchical(z0: str, alpha: float, *, networks: str, **others: Any) -> Settings:
    reverse = "heads" if alpha == 0.0 and networks == "small" else Settings().reverse
    return Settings(z0=z0, alpha=alpha, reverse=reverse, networks=networks, **others)


def proposals_settings(seeds: int, networks: str) -> list[Settings]:
    """The rows of figure 2. One seed is shown, whatever `seeds` is, and the chain has small networks."""
    return [
        Settings(z0="markov", gradient="reparameterized", seeds=1, **PAPER),
        _hierarchical("shared", 0.0, seeds=1, networks=networks, **PAPER),
        _hierarchical("shared", 0.0, seeds=1, networks=networks, **LONG),
        _hierarchical("shared", 1.0, seeds=1, networks=networks, **PAPER),
    ]


def dispersion_settings(seeds: int, networks: str) -> list[Settings]:
    """The fits of figure 3, by training, alpha and z_0. Figure 4 shows all but one of them for each training."""
    return [
        _hierarchical(z0, alpha, seeds=seeds, networks=networks, **training)
        for training in TRAININGS.values()
        for alpha in (0.0, 1.0)
        for z0 in ("separate", "shared")
    ]


def weighting_settings(seeds: int, networks: str) -> list[Settings]:
    """The rows of figure 7: one fit of one seed at two times, since a seed always draws the same noise."""
    trainings = [{**PAPER, "steps": steps} for steps in (EARLY, PAPER["steps"])]
    return [Settings(learned=True, seeds=1, networks=networks, **training) for training in trainings]


def _first(fitted: Fit, *, draws: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Samples [draws, K, 2], log-weights [draws, K], z_0 [draws, 2] of seed 0; for a chain, its first sample."""
    problem = make_problem(Settings(**fitted.result["settings"]))
    params = jax.tree.map(lambda leaf: leaf[0], fitted.params)

    def sample(key):
        draw = problem.draw(params, jnp.zeros(()), key)
        origin = draw.z[0] if draw.z0 is None else draw.z0[0]
        return draw.z, problem.log_weights(params, jnp.zeros(()), key), origin

    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(3), draws))


@jax.jit
@jax.vmap
def _resample_one(key, log_w, z):
    return hj.posterior_resample(key, log_w, z, num_samples=1)[0]


def _plane(axis: Axes) -> None:
    axis.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal", xticks=(-4, 0, 4), yticks=(-4, 0, 4))
    axis.tick_params(labelsize=7, length=2)


def _scatter(axis: Axes, z: np.ndarray, origin: np.ndarray) -> PathCollection:
    color = np.linalg.norm(origin[:SCATTERED], axis=1)
    # All members have the same limits, since they share the draws. Without the quantile a few far points would use up
    # the colours.
    style = {"s": 2.5, "linewidths": 0, "cmap": "viridis", "vmin": 0.0, "vmax": np.quantile(color, 0.98)}
    points = axis.scatter(*z[:SCATTERED].T, c=color, **style)
    _plane(axis)
    return points


def _grid(*, cells: int = 220) -> jax.Array:
    axis = jnp.linspace(-EXTENT, EXTENT, cells)
    return jnp.stack(jnp.meshgrid(axis, axis), axis=-1)


def _gap(fitted: Fit) -> str:
    return f"gap {fitted.result['gap'][0]:.3f}"


def draw_proposals(fits: list[Fit], path: pathlib.Path) -> dict[str, Any]:
    """Figure 2: the target, what sampling-importance-resampling makes of the samples, and each member's own samples."""
    num_members = fits[0].result["settings"]["num_samples"]
    size = (2.3 * (2 + num_members) + 0.8, 2.35 * len(fits))
    figure, axes = plt.subplots(len(fits), 2 + num_members, figsize=size, layout="constrained", squeeze=False)
    for fitted, row in zip(fits, axes, strict=True):
        _draw_proposals_row(figure, row, fitted)
    titles = ["target", "SIR: resampled by weight", *(f"proposal {member + 1}" for member in range(num_members))]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    save(figure, path)
    return {"results": [fitted.result for fitted in fits]}


def _draw_proposals_row(figure: Figure, row: np.ndarray, fitted: Fit) -> None:
    """One fit: target, resampled samples, and a panel for each member."""
    settings = Settings(**fitted.result["settings"])
    z, log_w, origin = _first(fitted, draws=MAP_DRAWS)
    resampled = np.asarray(_resample_one(jax.random.split(jax.random.key(4), len(z)), log_w, z))
    grid, edges = _grid(), np.linspace(-EXTENT, EXTENT, 111)
    row[0].pcolormesh(*np.moveaxis(grid, -1, 0), np.exp(jax.vmap(jax.vmap(log_target))(grid)), cmap="magma")
    row[1].hist2d(*resampled.T, bins=(edges, edges), cmap="magma")
    for axis in row[:2]:
        _plane(axis)
    for member, axis in enumerate(row[2:]):
        points = _scatter(axis, z[:, member], origin)
    is_chain = settings.z0 == "markov"
    color = "$|z_1|$, first of the chain" if is_chain else "$|z_0|$"
    figure.colorbar(points, ax=row, label=color, aspect=12, shrink=0.85)
    name = "Markov chain" if is_chain else rf"H-IWAE, $\alpha = {settings.alpha:g}$"
    row[0].set_ylabel(f"{name}\n{settings.steps:,} steps, {_gap(fitted)}", fontsize=9)


def draw_dispersion(fits: list[Fit], path: pathlib.Path) -> dict[str, Any]:
    """Figure 3, and beside it the comparison of shared with separate z_0 as a table."""
    results = [fitted.result for fitted in fits]
    draw_all_boxes(results, path)
    comparisons = compare(results)
    text = comparison_table(comparisons)
    path.with_suffix(".md").write_text(text + "\n")
    print(f"\n{text}\n")
    return {"results": results, "comparisons": comparisons}


def draw_all_boxes(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Figure 3: the bound and the dispersion of the estimate of Z, shared against separate z_0; a point is a seed."""
    figure, axes = panels(len(MEASURES), len(TRAININGS), height=2.2)
    size = len(results) // len(TRAININGS)
    for number, (training, column) in enumerate(zip(TRAININGS, axes.T, strict=True)):
        of_training = results[number * size : (number + 1) * size]
        for axis, name in zip(column, MEASURES, strict=True):
            _draw_boxes(axis, of_training, name)
        seeds = f"{len(of_training[0]['gap'])} seeds"
        column[0].set_title(f"{training.replace(': ', ':' + chr(10))}\n{seeds}")
    for axis, title in zip(axes[:, 0], MEASURES.values(), strict=True):
        axis.set_ylabel(title)
    save(figure, path)


def _draw_boxes(axis: Axes, results: list[dict[str, Any]], name: str) -> None:
    """One of `MEASURES`: a box for each fit, with a point for each seed."""
    boxes = axis.boxplot(
        [result[name] for result in results],
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for place, (result, box) in enumerate(zip(results, boxes["boxes"], strict=True), start=1):
        box.set_facecolor("0.75" if result["settings"]["z0"] == "shared" else "white")
        jitter = np.linspace(-0.2, 0.2, len(result[name]))
        color = palette.HIWAE[result["settings"]["alpha"]]
        axis.plot(place + jitter, result[name], "o", color=color, markersize=2.5)
    names = [f"{result['settings']['z0']}\n$\\alpha = {result['settings']['alpha']:g}$" for result in results]
    axis.set_xticks(range(1, len(names) + 1), names)
    axis.grid(visible=False, axis="x")
    if name == "bound":
        axis.axhline(results[0]["log_z"], color="black", linestyle="--", linewidth=1)
        axis.annotate(r"$\log Z$", (0.6, results[0]["log_z"]), va="bottom")
        axis.margins(y=0.1)
    else:
        log_ticks(axis)


def draw_correlation(fits: list[Fit], path: pathlib.Path) -> dict[str, Any]:
    """Figure 4: correlation matrices of the weights w_j, mean over seeds and in brackets the standard deviation."""
    size = len(fits) // len(TRAININGS)
    figure, axes = panels(len(TRAININGS), 3, height=2.1, grid=False)
    content = []
    for number, (training, row) in enumerate(zip(TRAININGS, axes, strict=True)):
        results = [fitted.result for fitted in fits[number * size : (number + 1) * size]]
        chosen = [one for one in results if one["settings"]["z0"] == "shared" or one["settings"]["alpha"] == 0.0]
        for axis, result in zip(row, chosen, strict=True):
            matrices = np.asarray(result["weight_correlation"])
            mean, spread = matrices.mean(0), matrices.std(0, ddof=1 if len(matrices) > 1 else 0)
            _draw_matrix(axis, mean, spread)
            settings = result["settings"]
            axis.set_title(rf"{settings['z0']} $z_0$, $\alpha = {settings['alpha']:g}$")
            content.append({"settings": settings, "mean": mean.tolist(), "standard_deviation": spread.tolist()})
        row[0].set_ylabel(training.replace(": ", ":\n").replace(" steps, ", " steps,\n"))
    save(figure, path)
    return {"correlations": content}


def _draw_matrix(axis: Axes, mean: np.ndarray, spread: np.ndarray) -> None:
    """One matrix with its numbers."""
    axis.imshow(mean, cmap="cividis", vmin=-0.5, vmax=1.0)
    for i, j in np.ndindex(mean.shape):
        color = "black" if mean[i, j] > 0.3 else "white"
        value = f"{mean[i, j]:.2f}".replace("-0.00", "0.00")
        text = value if i == j else f"{value}\n({spread[i, j]:.2f})"
        axis.text(j, i, text, ha="center", va="center", color=color, fontsize=9)
    ticks = range(len(mean)), [f"$w_{j + 1}$" for j in range(len(mean))]
    axis.set_xticks(*ticks)
    axis.set_yticks(*ticks)


def draw_weighting(fits: list[Fit], path: pathlib.Path) -> dict[str, Any]:
    """Figure 7: each member's samples, and the learned weighting over the plane, early and late in training."""
    num_members = fits[0].result["settings"]["num_samples"]
    size = (2.1 * 2 * num_members + 1.6, 2.5 * len(fits))
    figure, axes = plt.subplots(len(fits), 2 * num_members, figsize=size, layout="constrained", squeeze=False)
    for fitted, row in zip(fits, axes, strict=True):
        _draw_weighting_row(figure, row[:num_members], row[num_members:], fitted)
    for member in range(num_members):
        axes[0][member].set_title(f"proposal {member + 1}", fontsize=10)
        axes[0][num_members + member].set_title(rf"$\pi_{member + 1}(z)$", fontsize=10)
    save(figure, path)
    return {"results": [fitted.result for fitted in fits]}


def _draw_weighting_row(figure: Figure, samples: np.ndarray, maps: np.ndarray, fitted: Fit) -> None:
    """One fit: a panel for each member's samples, and one for its part of the target over the plane."""
    grid = _grid()
    x, y = np.moveaxis(np.asarray(grid), -1, 0)
    density = np.exp(jax.vmap(jax.vmap(log_target))(grid))
    z, _, origin = _first(fitted, draws=SCATTERED)
    params = jax.tree.map(lambda leaf: leaf[0], fitted.params)
    weighting = jax.nn.softmax(jax.vmap(jax.vmap(lambda z: learned_logits(params, z)))(grid))
    for member, (axis, of_map) in enumerate(zip(samples, maps, strict=True)):
        points = _scatter(axis, z[:, member], origin)
        image = of_map.pcolormesh(x, y, weighting[..., member], cmap="cividis", vmin=0.0, vmax=1.0)
        of_map.contour(x, y, density, levels=(0.1, 0.5), colors="white", linewidths=0.7)
        _plane(of_map)
    settings = fitted.result["settings"]
    samples[0].set_ylabel(f"after {settings['steps']:,} steps\n{_gap(fitted)}", fontsize=9)
    figure.colorbar(points, ax=samples, label="$|z_0|$", aspect=12, shrink=0.85)
    figure.colorbar(image, ax=maps, label=r"$\pi_j(z)$", aspect=12, shrink=0.85)


FIGURES: dict[int, tuple[Callable[..., Any], Callable[..., Any]]] = {
    2: (proposals_settings, draw_proposals),
    3: (dispersion_settings, draw_dispersion),
    4: (dispersion_settings, draw_correlation),
    7: (weighting_settings, draw_weighting),
}


def write(figures: list[int], folder: pathlib.Path, *, seeds: int, networks: str, fits: pathlib.Path) -> None:
    """Fit what is not there yet, and write `figure2.png` and so on, with their numbers in `figures.json`."""
    # A mistake in the last figure is an error before the first fit.
    rows = {figure: [settings.check() for settings in FIGURES[figure][0](seeds, networks)] for figure in figures}
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "figures.json"
    log_z = log_normaliser()
    for figure, settings in rows.items():
        content = FIGURES[figure][1]([fit(one, fits, log_z=log_z) for one in settings], folder / f"figure{figure}.png")
        known = read_json(numbers) if numbers.exists() else {}
        write_json(numbers, {**known, f"figure {figure}": content, "provenance": provenance()})
        print(f"figure {figure} is {folder / f'figure{figure}.png'}, its numbers are in {numbers}", flush=True)
