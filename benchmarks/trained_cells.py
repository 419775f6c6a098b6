"""What the tables do not say of a trained cell: its NLL from more samples, and how many latent units it uses.

    python -m benchmarks.trained_cells --runs runs --data-dir DIR       # every finished cell there, minutes each

The tables estimate log p(x) from 2,000 samples of z, and the paper's released code from 2,000 draws of K samples. By
Jensen's inequality fewer samples give a higher negative log-likelihood (NLL) of the same model. Both are computed here
from the same draws, so that their difference has little noise. The NLL from 2,000 samples is the mean over groups of
these draws, each with so many samples.

A latent unit is active if the mean of its samples given x varies over the images, with a variance above 0.01 (Burda et
al., 2016, section 5.3). The mean is over all members of a proposal, and z_0 is not counted.

A cell needs the checkpoint of the end of its training, beside its `result.json`. One with another checkpoint, whose
learning curve is not that of the result, is passed over. Of several seeds the first is measured. Images are evenly
spread over the test set. Each finished cell is kept in the output folder, so that a stopped run continues.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from experiments.shared import command_line, compact_json, run_folder, stored
from experiments.shared.markdown import table as markdown
from experiments.shared.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from experiments.vae.images import AnyDataset
    from experiments.vae.models import Model, Params
    from experiments.vae.settings import Settings

NAME = "benchmarks.trained_cells"
DRAWS = 2_000  # of K samples for each image, as in the released code
SAMPLES = 2_000  # of z, as in the tables
CURVE = "validation_bound"  # by which a checkpoint is known
ACTIVE = 0.01  # the least variance over images of an active unit
SAVED = ("dataset", "model", "num_samples", "encoder_updates", "twice", "gradient", "steps", "latent")  # settings


def main(arguments: list[str] | None = None) -> int:
    """Measure the cells that are not measured yet, and write a table of all."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(2)
    parser.add_argument("--runs", nargs="+", type=command_line.existing_folder, required=True, help="folders of cells")
    parser.add_argument("--data-dir", type=command_line.existing_folder, help="folder of the raw files")
    parser.add_argument("--images", type=count, default=200, help="of the test set; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/trained_cells"))
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output / "cells")
        folders = cells(options.runs)
        if not folders:
            raise FileNotFoundError("--runs: no finished cell of experiments.vae with its checkpoint is there")
        for path in (options.output / "cells").glob("*.json"):
            stored.read_json(path)  # a damaged one is an error before any work
        sets = load_all(folders.values(), options.data_dir)  # so is a set without its files
    return run_folder.work_in(options.output, lambda: _run(options, folders, sets))


def cells(runs: list[pathlib.Path]) -> "dict[pathlib.Path, Settings]":
    """The folders of finished cells that have a checkpoint, and their settings."""
    from experiments.vae import result_files

    found = {}
    for path in sorted(path for run in runs for path in run.rglob(result_files.RESULT)):
        if (path.parent / "checkpoints").is_dir():
            found[path.parent] = result_files.checked(stored.read_json(path))
    return found


def load_all(cells: "Iterable[Settings]", data_dir: pathlib.Path | None) -> "dict[str, AnyDataset]":
    """The data sets of the cells, by their name."""
    from experiments.vae import images

    return {name: images.load(name, data_dir) for name in {settings.dataset for settings in cells}}


def _run(options: argparse.Namespace, folders: "dict[pathlib.Path, Settings]", sets: "dict[str, AnyDataset]") -> None:
    from experiments.vae import images
    from experiments.vae.models import make_model

    measured = []
    for folder, settings in folders.items():
        path = options.output / "cells" / f"{folder.name}-{options.images}.json"
        if not path.exists():
            data = sets[settings.dataset]
            model = make_model(settings, pixel_mean=images.pixel_mean(data))
            params = trained(model, settings, data, folder)
            if params is None:
                print(f"{folder}: passed over, because its checkpoint is not that of the end of its training")
                continue
            figures = measure(model, settings, params, data, num_images=options.images)
            head = {name: getattr(settings, name) for name in SAVED}
            stored.write_json(path, {**head, **figures, "provenance": provenance()})
        measured.append(stored.read_json(path))
    measured.sort(key=lambda cell: [cell[name] for name in ("dataset", "num_samples", "model", "encoder_updates")])
    content = {"history": [], "settings": {"images": options.images}, "cells": measured}
    compact_json.write(options.output / "trained_cells.json", content)
    (options.output / "trained_cells.md").write_text(table(content) + "\n")
    print(f"{table(content)}\n\ntable and JSON are in {options.output}/")


def trained(model: "Model", settings: "Settings", data: "AnyDataset", folder: pathlib.Path) -> "Params | None":
    """The evaluated parameters of seed 0, from the checkpoint at the end of training; None if it is not that one."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments.vae import checkpoints, report, result_files, training
    from experiments.vae.models import of_one

    programs = training.make_programs(model, settings, data)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), programs.state_shapes(settings))
    belongs_to = stored.identity(settings.written(), data.name, data.checksum)
    with checkpoints.opened(folder / "checkpoints", belongs_to) as kept:
        restored = kept.restore(empty)
    if restored is None:
        return None
    state = restored[0]
    known = stored.read_json(folder / result_files.RESULT)["curves"]
    found = report.finished_curves(training.Trained(state, 0.0, finished=True))
    if found["step"] != known["step"] or not np.allclose(found[CURVE], known[CURVE], rtol=1e-4):
        return None
    return of_one(state.best, 0)


def measure(
    model: "Model", settings: "Settings", params: "Params", data: "AnyDataset", *, num_images: int
) -> dict[str, Any]:
    """The figures of one seed's parameters on images of the test set."""
    import jax
    import numpy as np
    from tqdm import tqdm

    from experiments.vae import evaluation, images

    rows = images.spread(data.test, num_images)
    block = min(evaluation.rows_of_block(settings), len(rows))
    of_block = evaluation.over_block(_make_draws(model), images.make_pixels(data), None)
    found = []
    with jax.default_matmul_precision(evaluation.PRECISION):
        for start in tqdm(range(0, len(rows), block), unit="block", desc=settings.name()):
            part = rows[start : start + block]
            padded = np.concatenate([part, np.repeat(part[:1], block - len(part), axis=0)])
            found.append([np.asarray(a)[: len(part)] for a in of_block(params, padded, start + np.arange(block))])
    return _figures(*map(np.concatenate, zip(*found, strict=True)), settings.num_samples)


def _figures(estimates: "np.ndarray", means: "np.ndarray", num_samples: int) -> dict[str, Any]:
    """Means over images, of the log mean weights [N, draws] and the mean samples of z [N, D]."""
    import numpy as np

    few, many = negative_log_likelihoods(np.asarray(estimates, np.float64), num_samples)
    return {
        "images": len(means),
        "nll_few": float(few.mean()),
        "nll_many": float(many.mean()),
        "difference": float((few - many).mean()),
        "difference_error": float((few - many).std(ddof=1) / np.sqrt(len(means))),
        "active_units": int((means.var(axis=0, ddof=1) > ACTIVE).sum()),
    }


def _make_draws(model: "Model") -> Any:
    """`(params, x, key) -> (log of the mean weight of each draw [DRAWS], mean sample of z [D])`."""
    import jax

    log_weights = model.log_weights()

    def draws(params, x, key):
        def of_draw(key):
            return jax.nn.logsumexp(log_weights(params, x, key)), model.proposal.draw(params, x, key).z.mean(0)

        estimates, means = jax.lax.map(of_draw, jax.random.split(key, DRAWS))
        return estimates, means.mean(0)

    return draws


def negative_log_likelihoods(estimates: "np.ndarray", num_samples: int) -> "tuple[np.ndarray, np.ndarray]":
    """The NLL of images [N] from `SAMPLES` samples of z and from all, of the log mean weights [N, draws] of K samples.

    The former is the mean over groups of draws, each of as many samples.
    """
    import numpy as np
    from scipy.special import logsumexp

    draws = estimates.shape[1]
    of_group = -(-SAMPLES // num_samples)
    groups = estimates[:, : draws - draws % of_group].reshape(len(estimates), -1, of_group)
    few = -(logsumexp(groups, axis=2) - np.log(of_group)).mean(axis=1)
    return few, -(logsumexp(estimates, axis=1) - np.log(draws))


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each cell."""
    header = ["data", "model", "K", "encoder updates", "steps"]
    header += ["NLL, 2,000 samples", "NLL, 2,000 draws of K", "difference", "standard error", "active units"]
    rows = []
    for cell in content["cells"]:
        updates = f"{cell['encoder_updates']}" + (" (r once)" if cell["twice"] == "encoder" else "")
        rows.append(
            [
                *(cell["dataset"], cell["model"], f"{cell['num_samples']}", updates, f"{cell['steps']:,}"),
                *(f"{cell['nll_few']:.2f}", f"{cell['nll_many']:.2f}", f"{cell['difference']:.3f}"),
                *(f"{cell['difference_error']:.3f}", f"{cell['active_units']} of {cell['latent']}"),
            ]
        )
    return markdown(header, rows)


if __name__ == "__main__":
    raise SystemExit(main())
