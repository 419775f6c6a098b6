"""Where the time of one optimisation step goes: its parts, each timed alone, beside the whole step.

    python -m benchmarks.step_parts                       # some minutes on one core
    python -m benchmarks.step_parts --num-samples 50 --rounds 15

The step is that of `benchmarks.peers`: an IWAE of MLPs with 200-200 units, 784 pixels, 32 latent dimensions and a batch
of 64, in float32, with Adam. "whole step" is `hj.batched_value_and_grad` with the DReG gradient, scanned. The parts are
programs of their own with arrays of the same shapes, in pieces of at most 800 samples. So they stay in the cache, as in
the whole step:

  decoder, encoder products   the matrix products, forward and backward, with nothing between them.
  pixels                      the Bernoulli likelihood with its gradient.
  tanh                        of all hidden units, forward and backward.
  noise                       the standard normal numbers of all samples.
  Adam                        the update of all parameters.
  rest                        the whole step less all parts: weights, densities of z, copies, sums over chunks. It is
                              negative where the compiler fuses parts with one another.

The same step is also timed in bfloat16, in two ways:

  products in bfloat16        each product rounds both factors to bfloat16, and sums in float32. All else is float32.
  networks in bfloat16        the networks compute in bfloat16, and their results are float32 again.

In a round all programs run in shuffled order. The table has medians over rounds of the ratio to the whole step, and
below them those of whole steps to plain JAX. Its last rows say how far the value and the gradient of the first step are
from those of float32, with the same parameters and noise: the value in nats, the gradient relative to its norm.
"""

import pathlib
from typing import TYPE_CHECKING, Any

from experiments.shared import command_line, compact_json, run_folder
from experiments.shared.markdown import table as markdown
from experiments.shared.provenance import provenance

if TYPE_CHECKING:  # at run time it waits until the cores are chosen
    import jax

    from benchmarks.peers.problem import Contestant, Problem

NAME = "benchmarks.step_parts"
PIECE = 800  # samples
UPDATES = 20  # of Adam in one call, in place as in a scanned step
WHOLE, PLAIN = "whole step", "plain JAX"
TIMES_OF_PLAIN = "whole step / plain JAX"


def main(arguments: list[str] | None = None) -> int:
    """Time the parts, and print and write the table."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--num-samples", nargs="+", type=count, default=[1, 5, 50], help="K; default: 1 5 50")
    parser.add_argument("--rounds", type=count, default=9, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=command_line.number(above=0.0), default=0.3, help="of one program in one round; default: 0.3"
    )
    parser.add_argument("--cores", type=count, default=1, help="CPU cores to run on; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/step_parts"))
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: Any) -> None:
    from benchmarks.shared import cores

    cores.use_cores(options.cores)
    cells = [_cell(K, options) for K in options.num_samples]
    settings = {name: getattr(options, name) for name in ("rounds", "seconds", "cores")}
    content = {"history": [], "provenance": provenance(), "settings": settings, "cells": cells}
    compact_json.write(options.output / "step_parts.json", content)
    (options.output / "step_parts.md").write_text(table(content) + "\n")
    print(f"{table(content)}\n\ntable and JSON are in {options.output}/")


def _cell(K: int, options: Any) -> dict[str, Any]:
    """The shares of the parts at one K."""
    import numpy as np

    from benchmarks.peers.contestants import make
    from benchmarks.peers.measurement import interleaved
    from benchmarks.peers.problem import Sizes, make_problem

    problem = make_problem(Sizes(), K)
    programs, repeats = parts(problem)
    short = in_short_floats(problem)
    programs |= {WHOLE: make("hiwae-dreg-scanned", problem), PLAIN: make("jax", problem), **short}
    timed = interleaved(programs, rounds=options.rounds, least_seconds=options.seconds)
    seconds = {name: repeats.get(name, 1) * np.asarray(values) for name, values in timed.cpu.items()}
    whole = seconds[WHOLE]
    shares = {name: float(np.median(values / whole)) for name, values in seconds.items() if name in repeats}
    rest = float(np.median(1.0 - sum(seconds[name] for name in repeats) / whole))
    return {
        "num_samples": K,
        "milliseconds": 1e3 * float(np.median(whole)),
        "shares": {**shares, "rest": rest},
        TIMES_OF_PLAIN: float(np.median(whole / seconds[PLAIN])),
        "bfloat16": {
            name: {"of_plain": float(np.median(seconds[name] / seconds[PLAIN])), **distances(step, programs[WHOLE])}
            for name, step in short.items()
        },
    }


def in_short_floats(problem: "Problem") -> "dict[str, Contestant]":
    """The whole step in bfloat16, in each way."""
    from benchmarks.peers.on_jax import make_hiwae

    ways = {"products in bfloat16": with_short_products, "networks in bfloat16": in_bfloat16}
    options = {"gradient": "doubly_reparameterized", "in_chunks": True, "scanned": True}
    return {name: make_hiwae(problem, network=network, **options) for name, network in ways.items()}


def with_short_products(layers: Any, h: "jax.Array") -> "jax.Array":
    """The MLP of `benchmarks.peers`; each product rounds its factors to bfloat16, and sums in float32."""
    import jax.numpy as jnp

    def product(a, b):
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    for layer in layers[:-1]:
        h = jnp.tanh(product(h, layer["kernel"]) + layer["bias"])
    return product(h, layers[-1]["kernel"]) + layers[-1]["bias"]


def in_bfloat16(layers: Any, h: "jax.Array") -> "jax.Array":
    """The MLP of `benchmarks.peers` in bfloat16, its result in float32."""
    import jax
    import jax.numpy as jnp

    from benchmarks.peers.problem import mlp

    layers, h = jax.tree.map(lambda array: array.astype(jnp.bfloat16), (layers, h))
    return mlp(layers, h).astype(jnp.float32)


def distances(step: "Contestant", exact: "Contestant") -> dict[str, float]:
    """How far the value and the gradient of a step are from those of another."""
    import jax
    import numpy as np

    found, expected = step.evaluate(), exact.evaluate()
    gradient, other = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(evaluated.gradient)]).astype(np.float64)
        for evaluated in (found, expected)
    )
    return {
        "nats": abs(found.loss - expected.loss),
        "gradient": float(np.linalg.norm(gradient - other) / np.linalg.norm(other)),
    }


def parts(problem: "Problem") -> "tuple[dict[str, Contestant], dict[str, float]]":
    """The programs of the parts, and how often each has to run for one step."""
    import jax

    from benchmarks.shared.roofline import decoder_products, other_parts

    batch, pixels, hidden, latent = problem.sizes
    samples = batch * problem.num_samples
    rows = min(samples, PIECE)
    times = samples / rows
    decoder = (latent, hidden, hidden, pixels)
    encoder = (pixels, hidden, hidden, 2 * latent)
    found = {
        "decoder products": (*decoder_products(decoder, rows, "float32")[:2], times),
        "encoder products": (*decoder_products(encoder, batch, "float32", of_input=False)[:2], 1),
    }
    others = other_parts(decoder, rows, "float32")
    units = (samples + batch) / rows  # the encoder has as many for an example as the decoder has for a sample
    for name, title, repeats in (("likelihood", "pixels", times), ("tanh", "tanh", units), ("noise", "noise", times)):
        found[title] = (jax.jit(others[name][0]), others[name][1], repeats)
    found["Adam"] = (*_updates(problem), 1 / UPDATES)
    programs = {name: _repeated(program, arguments) for name, (program, arguments, _) in found.items()}
    return programs, {name: repeats for name, (_, _, repeats) in found.items()}


def _updates(problem: "Problem") -> tuple[Any, Any]:
    """Several updates of all parameters by Adam, and their arguments."""
    import jax
    import jax.numpy as jnp
    import optax

    params = jax.tree.map(jnp.asarray, problem.params)
    optimizer = optax.adam(1e-3)

    @jax.jit
    def updates(params, moments, gradient):
        def update(_, state):
            params, moments = state
            changes, moments = optimizer.update(gradient, moments, params)
            return optax.apply_updates(params, changes), moments

        return jax.lax.fori_loop(0, UPDATES, update, (params, moments))

    return updates, (params, optimizer.init(params), jax.tree.map(jnp.ones_like, params))


def _repeated(program: Any, arguments: Any) -> "Contestant":
    import jax

    from benchmarks.peers.problem import Contestant

    def advance(calls: int) -> None:
        for _ in range(calls):
            jax.block_until_ready(program(*arguments))

    return Contestant(advance, evaluate=lambda: None)  # a part has no loss


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each part."""
    cells = content["cells"]
    rows = {
        f"share: {name}": [f"{round(100 * cell['shares'][name])} %" for cell in cells] for name in cells[0]["shares"]
    }
    rows["milliseconds of a step"] = [f"{cell['milliseconds']:.2f}" for cell in cells]
    rows[TIMES_OF_PLAIN] = [f"{cell[TIMES_OF_PLAIN]:.2f}" for cell in cells]
    for name in cells[0]["bfloat16"]:
        of_way = [cell["bfloat16"][name] for cell in cells]
        rows[f"{name} / plain JAX"] = [f"{way['of_plain']:.2f}" for way in of_way]
        rows[f"{name}: value apart, nats"] = [f"{way['nats']:.1g}" for way in of_way]
        rows[f"{name}: gradient apart"] = [f"{100 * way['gradient']:.1f} %" for way in of_way]
    header = ["one step", *(f"K = {cell['num_samples']}" for cell in cells)]
    return markdown(header, [[name, *row] for name, row in rows.items()])


if __name__ == "__main__":
    raise SystemExit(main())
