"""Evaluation of a trained model: bounds and negative log-likelihoods, in bounded memory and in pieces."""

import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

import hiwae_jax as hj
from experiments.shared import run_folder, stored
from experiments.vae import compiling, divergence, images, layout
from experiments.vae.models import Model, Params, of_one
from experiments.vae.settings import Settings
from experiments.vae.split_mean import Figure, draws_for, mean_of_seed, over_seeds

# The rows that the decoder takes in one call. On a CPU they fill the matrix unit and fit into the cache; a row of the
# paper's decoder has more numbers. On an accelerator an array of that decoder takes 2 GB, and a block of images a few
# seconds. A kill loses a block.
ROWS_ON_CPU = {"mlp": 1_000, "conv": 250}
ROWS_ON_ACCELERATOR = 20_000
LEAST_BLOCK = 100  # images, where a split has so many; those of a smaller split are padded
PRECISION = "float32"  # accelerators multiply shorter floats by default
SECONDS_BETWEEN_SAVES = 60.0
FIGURES = ("train_bound", "validation_bound", "test_bound", "validation_nll", "test_nll")


class Programs(NamedTuple):
    """The compiled functions of evaluation: `(params, rows, indices) -> (values, errors)` of a block of images.

    They compile at their first call, unless they are `compiled` before.
    """

    bound: Callable[..., tuple[jax.Array, jax.Array]]
    nll: Callable[..., tuple[jax.Array, jax.Array]]


class _Task(NamedTuple):
    """One figure of one seed: a compiled function of blocks of a split."""

    title: str
    function: Callable[..., tuple[jax.Array, jax.Array]]
    seed: int
    split: np.ndarray


def evaluate(
    model: Model,
    settings: Settings,
    params: Params,
    data: images.AnyDataset,
    *,
    mesh: Mesh | None = None,
    programs: Programs | None = None,
    saved: pathlib.Path | None = None,
    deadline: float | None = None,
) -> dict[str, Any] | None:
    """The `FIGURES` of parameters with a leading axis of seeds.

    Bounds are with the model's own K, over whole splits. Negative log-likelihoods are from `settings.nll_samples`
    samples of z for each of `settings.nll_images` images. Each image has random numbers of its own, which also binarize
    its grey levels. They are the same for all models, K, seeds and devices, so that these are compared on equal pixels.

    Args:
      model: the model of `settings`.
      settings: the cell.
      params: with a leading axis of seeds.
      data: its data set.
      mesh: each block of images lies over its axis `data`.
      programs: of `make_programs` for the same arguments, if they are there already.
      saved: a file of what is done, from which a second call with the same arguments goes on. One that is damaged or
        of other arguments is made anew.
      deadline: of `time.monotonic()`. A signal (`run_folder.stops_in_order`) stops it likewise.

    Returns:
      A dict by `FIGURES`, with the numbers of samples and images and the seconds that it took, or None if the deadline
      came first.

    Raises:
      FloatingPointError: images have importance weights that are all zero, or figures that are not finite; it says how
        many.
    """
    splits = _splits(settings, data)
    programs = programs or make_programs(model, settings, data, mesh=mesh)
    tasks = _tasks(programs, splits, seeds=len(jax.tree.leaves(params)[0]))
    pieces = None
    if saved is not None:
        described = settings.written(), data.name, data.checksum
        belongs_to = stored.identity(*described, arrays=jax.tree.leaves(params))
        pieces = stored.Pieces(saved, belongs_to, total=sum(len(task.split) for task in tasks))
    with jax.default_matmul_precision(PRECISION):
        found = _work_through(tasks, params, rows_of_block(settings), mesh, pieces, deadline)
    if found is None:
        return None
    values, seconds = found
    return {
        **{name: figure._asdict() for name, figure in _figures(tasks, values).items()},
        "nll_samples": _num_draws(settings) * _num_samples(settings),
        "nll_images": [len(splits[name]) for name in FIGURES if name.endswith("nll")],
        "evaluation_seconds": seconds,
    }


def _splits(settings: Settings, data: images.AnyDataset) -> dict[str, np.ndarray]:
    """The images that each of `FIGURES` is a mean over."""
    whole = {"train": data.train, "validation": data.validation, "test": data.test}
    names = [name.rsplit("_", 1) for name in FIGURES]
    return {
        f"{split}_{kind}": images.spread(whole[split], settings.nll_images) if kind == "nll" else whole[split]
        for split, kind in names
    }


def _num_samples(settings: Settings) -> int:
    return 1 if settings.model == "vae" else settings.num_samples


def _num_draws(settings: Settings) -> int:
    return draws_for(_num_samples(settings), at_least=settings.nll_samples)


def rows_of_block(settings: Settings) -> int:
    """Images of a block, at most."""
    on_cpu = jax.default_backend() == "cpu"
    rows = ROWS_ON_CPU[settings.architecture] if on_cpu else ROWS_ON_ACCELERATOR
    return max(1, rows // _num_samples(settings))


def make_programs(model: Model, settings: Settings, data: images.AnyDataset, *, mesh: Mesh | None = None) -> Programs:
    """The functions of evaluation, for all devices of the mesh."""
    log_weights = model.log_weights()
    log_evidence = hj.make_log_evidence(log_weights, num_draws=_num_draws(settings))

    def bound(params, x, key):
        return jax.nn.logsumexp(log_weights(params, x, key)), jnp.zeros(())

    def nll(params, x, key):
        result = log_evidence(params, x, key)
        return -result.estimate, result.standard_error

    pixels = images.make_pixels(data)
    return Programs(over_block(bound, pixels, mesh), over_block(nll, pixels, mesh))


def compiled(programs: Programs, settings: Settings, params: Params, data: images.AnyDataset) -> Programs:
    """The same functions compiled, for one device and parameters of these shapes with a leading axis of seeds."""
    tasks = _tasks(programs, _splits(settings, data), seeds=1)
    one = jax.eval_shape(lambda params: of_one(params, 0), params)

    def of_blocks(function):
        task = next(task for task in tasks if task.function is function)
        indices = np.arange(_block_size(task, tasks, rows_of_block(settings)))
        rows = jax.ShapeDtypeStruct((len(indices), *task.split.shape[1:]), task.split.dtype)
        return function.lower(one, rows, indices).compile()

    with jax.default_matmul_precision(PRECISION):
        return Programs(*map(of_blocks, programs))


def _tasks(programs: Programs, splits: dict[str, np.ndarray], *, seeds: int) -> list[_Task]:
    """One task for each of `FIGURES` and each seed, in this order."""
    return [
        _Task(name, programs.nll if name.endswith("nll") else programs.bound, seed, split)
        for name, split in splits.items()
        for seed in range(seeds)
    ]


def _figures(tasks: list[_Task], values: np.ndarray) -> dict[str, Figure]:
    """The means over the images of each task, by title; a FloatingPointError if values are not finite."""
    ends = np.cumsum([len(task.split) for task in tasks])[:-1]
    of_titles: dict[str, list[tuple[float, float, float]]] = {}
    by_task = list(zip(tasks, np.split(values, ends, axis=1), strict=True))
    for task, of_task in by_task:
        divergence.require_finite(task.title, task.seed, *of_task)
    for task, of_task in by_task:
        of_titles.setdefault(task.title, []).append(mean_of_seed(*of_task))
    return {title: over_seeds(of_seeds) for title, of_seeds in of_titles.items()}


def over_block(
    function: Callable[..., tuple[jax.Array, jax.Array]], pixels: images.Pixels, mesh: Mesh | None
) -> jax.stages.Wrapped:
    """`(params, rows, indices)` -> what `function` of `(params, x, key)` gives for each image.

    The random numbers of an image, which also binarize it, come from its index.
    """

    @functools.partial(jax.jit, out_shardings=layout.over(mesh), compiler_options=compiling.for_many_runs())
    def of_block(params, rows, indices):
        rows, indices = layout.split(mesh, (rows, indices))

        def of_image(row, index):
            pixel_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(2), index))
            return function(params, pixels(row, pixel_key), noise_key)

        return jax.vmap(of_image, spmd_axis_name=layout.batch_axis(mesh))(rows, indices)

    return of_block


def _work_through(
    tasks: list[_Task],
    params: Params,
    rows: int,
    mesh: Mesh | None,
    saved: stored.Pieces | None,
    deadline: float | None,
) -> tuple[np.ndarray, float] | None:
    """Evaluate all images of all tasks: values and errors [2, images] and seconds, or None if the deadline came."""
    began, before, pieces = time.monotonic(), 0.0, [np.zeros((2, 0))]
    if saved is not None and layout.agreed(saved.path.exists()):
        before, found = saved.read()
        pieces = [found]

    def seconds() -> float:
        return before + time.monotonic() - began

    def save() -> None:
        if saved is not None and layout.is_first():
            saved.write(seconds(), np.concatenate(pieces, axis=1))

    total, done, saved_at = sum(len(task.split) for task in tasks), pieces[0].shape[1], began
    with tqdm(total=total, initial=done, unit="image", leave=False, disable=not layout.is_first()) as progress:
        for title, found in _blocks(tasks, params, rows, mesh, skipped=done):
            pieces.append(found)
            done += found.shape[1]
            progress.set_description(title, refresh=False)
            progress.update(found.shape[1])
            late = deadline is not None and time.monotonic() > deadline
            if done < total and layout.agreed(late or run_folder.stopping() is not None):
                save()
                return None
            if time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES:
                save()
                saved_at = time.monotonic()
    return np.concatenate(pieces, axis=1), seconds()


def _block_size(task: _Task, tasks: list[_Task], rows: int) -> int:
    """Images of a block: as many for every split that a function evaluates, so that it is compiled once."""
    sizes = [len(other.split) for other in tasks if other.function is task.function]
    return min(rows, max(sizes), max(min(sizes), LEAST_BLOCK))


def _blocks(
    tasks: list[_Task], params: Params, rows: int, mesh: Mesh | None, *, skipped: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Evaluate block after block: the task's title, and values and errors [2, images]. The last is padded."""
    for task in tasks:
        start = min(skipped, len(task.split))
        skipped -= start
        one = of_one(params, task.seed) if start < len(task.split) else None
        block = _block_size(task, tasks, rows)
        block += -block % (1 if mesh is None else mesh.shape["data"])
        for first in range(start, len(task.split), block):
            part = task.split[first : first + block]
            padded = np.concatenate([part, np.repeat(part[:1], block - len(part), axis=0)])
            results = task.function(one, padded, first + np.arange(block))
            yield task.title, np.stack([np.asarray(result, np.float64)[: len(part)] for result in results])
