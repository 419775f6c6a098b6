"""CPU seconds until the training script's program is compiled, with no cache of compiled programs.

    taskset -c 0 python -m benchmarks.compile_time    # on one core

The program is that of `experiments.vae` for the paper's MNIST cells at K = 5: a few epochs of steps, the optimizer, and
the bounds of train and validation images. Images are blank, which does not change the time. "initialization" is a
separate program, which is also run.
"""

import itertools
import time
from typing import Any

from experiments.shared import command_line

NAME = "benchmarks.compile_time"
PACKED = 784 // 8
TRAIN, MONITORED = 4_096, 2_000  # images


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = command_line.Parser(NAME, __doc__)
    parser.add_argument("--sweeps", nargs="+", default=["mnist-mlp", "mnist"], help="default: mnist-mlp mnist")
    parser.add_argument("--models", nargs="+", default=["iwae", "hiwae-0", "hiwae-1"])
    options = parser.parse_args(arguments)

    import jax
    import jax.numpy as jnp

    from experiments.vae import sweeps
    from experiments.vae.models import alpha_of

    unknown = [name for name in options.sweeps if name not in sweeps.SWEEPS]
    if unknown:
        parser.error(f"argument --sweeps: expected some of {', '.join(sweeps.SWEEPS)}, got {', '.join(unknown)}")
    with command_line.refusals(NAME):
        for name in options.models:
            alpha_of(name)
        chosen = {"model": options.models, "num_samples": [5]}
        cells = [
            (sweep, one.check()) for sweep in options.sweeps for one in sweeps.expand(sweeps.SWEEPS[sweep], chosen)
        ]
    jax.config.update("jax_enable_compilation_cache", False)
    train, monitored = (jnp.zeros((count, PACKED), jnp.uint8) for count in (TRAIN, MONITORED))
    print("| sweep | model | initialization | trace and lower | compile |\n| --- | --- | --- | --- | --- |")
    for sweep, settings in cells:
        marks = _marks(settings, train, monitored)
        seconds = " | ".join(f"{after - before:.1f}" for before, after in itertools.pairwise(marks))
        print(f"| {sweep} | {settings.model} | {seconds} |", flush=True)


def _marks(settings: Any, train: Any, monitored: Any) -> list[float]:
    """The CPU time before initialization, after it, after lowering the program of training, and after compiling it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments.vae import training
    from experiments.vae.models import make_model

    model = make_model(settings, pixel_mean=np.full(784, 0.1))
    plan = training.make_plan(settings, TRAIN)
    unpack = lambda rows, _: jnp.unpackbits(rows, axis=-1).astype(jnp.float32)
    run_call = training.make_run_call(model, settings, plan, unpack)
    seeds = jnp.arange(settings.seeds)
    start = jax.jit(lambda seeds: training.init_states(model, plan, seeds))
    marks = [time.process_time()]
    state = jax.block_until_ready(start(seeds))
    marks.append(time.process_time())
    lowered = run_call.lower(seeds, state, train, monitored, monitored)
    marks.append(time.process_time())
    lowered.compile()
    return [*marks, time.process_time()]


if __name__ == "__main__":
    main()
