"""Train and evaluate VAE, IWAE, IWAE(h) and H-IWAE on real images.

    python -m experiments.vae                                            # six models on the digits, a few minutes
    python -m experiments.vae --dataset binarized_mnist --data-dir DIR   # MNIST, from the raw files in DIR

Finished runs are kept in --output and not repeated; a run that was stopped goes on from its last checkpoint.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from experiments import evaluation, report, training
from experiments.models import MODELS, make_model
from experiments.settings import Settings
from hiwae_jax import data as datasets

MNIST_DEFAULTS = {"steps": 100_000, "latent": 50, "warmup": 10_000}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; what is left out takes the data set's default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("digits", "binarized_mnist"), default="digits")
    parser.add_argument("--data-dir", type=pathlib.Path, help="folder of the raw binarized MNIST files, plain or .gz")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--gradient", help="gradient estimator of make_bound")
    parser.add_argument("--num-samples", type=int, help="K; the VAE uses one")
    parser.add_argument("--hidden", type=int, nargs="+", help="units of the encoder's layers")
    for name in ("steps", "batch-size", "warmup", "latent", "proposal-hidden", "nll-samples", "seed"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("learning-rate", "polyak", "clip", "free-bits"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs"), help="default: %(default)s")
    return parser.parse_args(arguments)


def load(dataset: str, data_dir: pathlib.Path | None) -> datasets.Dataset:
    """The data set by name."""
    if dataset == "digits":
        return datasets.load_digits()
    return datasets.load_binarized_mnist(manual_dir=data_dir)


def run(settings: Settings, data: datasets.Dataset, output: pathlib.Path) -> dict:
    """One model: trained, evaluated and written to its folder; read back if that was done before."""
    settings.check()
    folder = output / settings.name()
    result_path = folder / "result.json"
    if result_path.exists():
        print(f"{settings.model}: finished before, read from {result_path}")
        return json.loads(result_path.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    num_pixels = data.shape[0] * data.shape[1]
    pixel_mean = np.unpackbits(data.train, axis=-1, count=num_pixels).mean(axis=0)
    model = make_model(
        settings.model,
        num_samples=settings.num_samples,
        pixel_mean=pixel_mean,
        latent=settings.latent,
        hidden=settings.hidden,
        proposal_hidden=settings.proposal_hidden,
        seed=settings.seed,
    )
    began = time.monotonic()
    state = training.train(model, settings, data, folder)
    jax.block_until_ready(state)
    trained = time.monotonic()
    figures = evaluation.evaluate(model, settings, state.best, data)
    report.write_pictures(model, settings, state.best, data, folder)
    curves = report.finished_curves(state)
    result = {
        "settings": settings._asdict(),
        "steps": int(curves[-1, 0]),
        **{name: value._asdict() if isinstance(value, tuple) else value for name, value in figures.items()},
        "train_seconds": trained - began,
        "evaluation_seconds": time.monotonic() - trained,
        "curves": {name: column.tolist() for name, column in zip(training.CURVES, curves.T, strict=True)},
        "data_checksum": data.checksum,
        "provenance": report.provenance(),
    }
    report.write_json(result_path, result)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run every model asked for, and print and write what they have in common."""
    options = parse(arguments)
    given = {name: value for name, value in vars(options).items() if name in Settings._fields and value is not None}
    defaults = MNIST_DEFAULTS if options.dataset == "binarized_mnist" else {}
    settings = Settings(**{**defaults, **given})
    if options.hidden:
        settings = settings._replace(hidden=tuple(options.hidden))
    settings.check()
    data = load(options.dataset, options.data_dir)
    results = [run(settings._replace(model=name), data, options.output) for name in options.models]
    text = report.table(results)
    print(f"\n{data.name}, bounds and NLL in nats, NLL from {results[0]['nll_samples']:,} samples of z an image\n")
    print(text)
    (options.output / f"{data.name}.md").write_text(text + "\n")
    curves = {r["settings"]["model"]: np.stack(list(r["curves"].values()), axis=1) for r in results}
    report.write_curves(options.output / f"{data.name}-curves.png", curves)
    print(f"\nfigures, samples and JSON are in {options.output}/")


if __name__ == "__main__":
    main()
