"""By how much control variates lower the variance of an estimate of p(x), at equal samples.

    python -m benchmarks.control_variates                        # a minute or two a model on the digits
    python -m benchmarks.control_variates --models hiwae-1 --draws 2000

A linear Gaussian model has a defensive proposal of four samples: three from a q that is off by a part of its standard
deviations, and one from the prior. The models on the digits are those of `make train`, trained anew with one seed. The
ratio is the squared standard error with control variates over that without them, on equal samples: a geometric mean
over runs, or over test images. The standard errors are calibrated (`tests/test_log_evidence.py`). The table and a JSON
file go to the output folder.
"""

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from experiments.shared import command_line, compact_json
from experiments.shared.provenance import provenance

NAME = "benchmarks.control_variates"
OFFSETS = (0.0, 0.1, 0.3, 1.0)  # of q, in standard deviations
RUNS, IMAGES = 200, 200


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and write it."""
    parser = command_line.Parser(NAME, __doc__)
    parser.add_argument("--models", nargs="*", default=["hiwae-0", "hiwae-1", "hiwae-3"], help="on the digits")
    parser.add_argument("--draws", type=command_line.whole_number(100), default=400, help="default: 400, of K samples")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/control_variates"))
    options = parser.parse_args(arguments)

    from experiments.vae.models import alpha_of

    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
        if any(alpha_of(name) is None for name in options.models):
            raise ValueError("--models: expected hiwae-A, whose members differ")
    content: dict[str, Any] = {"history": [], "provenance": provenance(), "draws": options.draws, "cells": []}
    for problem, alpha, ratio in _rows(options.models, options.draws):
        content["cells"].append({"problem": problem, "alpha": alpha, "ratio": ratio})
        print(_line(content["cells"][-1]), flush=True)
    compact_json.write(options.output / "control_variates.json", content)
    (options.output / "control_variates.md").write_text(table(content) + "\n")
    print(f"\n{table(content)}\n\ntable and JSON are in {options.output}/")


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each problem and alpha."""
    head = f"| problem, {content['draws']} draws | alpha | variance with control variates over that without |"
    return "\n".join([head, "| --- | --- | --- |", *map(_line, content["cells"])])


def _line(cell: dict[str, Any]) -> str:
    return f"| {cell['problem']} | {cell['alpha']:g} | {cell['ratio']:.2f} |"


def _rows(models: list[str], draws: int) -> Iterator[tuple[str, float, float]]:
    """The rows of the table."""
    from experiments.vae.models import alpha_of

    for offset in OFFSETS:
        for alpha in (0.0, 1.0):
            yield f"linear Gaussian, q off by {offset:g}", alpha, _linear_gaussian(offset, alpha, draws)
    for name in models:
        yield "digits, H-IWAE, K = 5", alpha_of(name), _digits(name, draws)


def _ratio(log_weights, params, examples, keys, draws: int) -> float:
    """The geometric mean of the ratios of the variances, one for each example and key."""
    import jax
    import numpy as np

    import hiwae_jax as hj

    variances = []
    for control_variates in (False, True):
        estimate = hj.make_log_evidence(log_weights, num_draws=draws, chunk_size=100, control_variates=control_variates)
        results = jax.jit(lambda rows, estimate=estimate: jax.lax.map(lambda row: estimate(params, *row), rows))
        variances.append(np.asarray(results((examples, keys)).standard_error, np.float64) ** 2)
    # A variance below that of rounding in float32 is none.
    return float(np.exp(np.mean(np.log(np.maximum(variances[1], 1e-14) / variances[0]))))


def _linear_gaussian(offset: float, alpha: float, draws: int) -> float:
    """`z ~ N(0, I)` in three dimensions, `x = A z + noise` in two."""
    import jax
    import jax.numpy as jnp

    import hiwae_jax as hj

    A, noise = jnp.array([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0]]), 0.8
    covariance = jnp.linalg.inv(jnp.eye(3) + A.T @ A / noise**2)

    def log_joint(params, x, z):
        log_likelihood = hj.diagonal_gaussian.log_prob((A @ z, jnp.full(2, noise)), x)
        return log_likelihood + hj.diagonal_gaussian.log_prob((jnp.zeros(3), jnp.ones(3)), z)

    def narrow(params, x):
        loc = covariance @ A.T @ x / noise**2 + offset * jnp.sqrt(jnp.diagonal(covariance))
        return loc, jnp.linalg.cholesky(covariance)

    proposal = hj.defensive(
        narrow, lambda params, x: (jnp.zeros(3), jnp.eye(3)), num_samples=4, family=hj.full_rank_gaussian
    )
    log_weights = hj.make_log_weights(log_joint, proposal, weighting=hj.power_heuristic(alpha))
    examples = jnp.broadcast_to(jnp.array([0.7, -1.2]), (RUNS, 2))
    return _ratio(log_weights, None, examples, jax.random.split(jax.random.key(0), RUNS), draws)


def _digits(name: str, draws: int) -> float:
    """A model of `make train`, at its test images."""
    import jax
    import jax.numpy as jnp

    from experiments.vae import images, training
    from experiments.vae.models import make_model, of_one
    from experiments.vae.settings import Settings

    settings = Settings(model=name)
    data = images.load(settings.dataset, None)
    model = make_model(settings, pixel_mean=images.pixel_mean(data))
    with tempfile.TemporaryDirectory() as folder:
        trained = training.train(model, settings, data, pathlib.Path(folder))
    unpack, keys = images.make_pixels(data), jax.random.split(jax.random.key(1), IMAGES)
    examples = unpack(jnp.asarray(images.spread(data.test, IMAGES)), keys)
    return _ratio(model.log_weights(), of_one(trained.state.best, 0), examples, keys, draws)


if __name__ == "__main__":
    main()
