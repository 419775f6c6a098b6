"""The cells of a table: which result each shows, its text beside the published number, and notes on its origin."""

import itertools
import string
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.shared.spread import over_seeds
from experiments.tables import published
from experiments.tables.collected import Result
from experiments.tables.published import Row
from experiments.vae.models import MODELS, title
from experiments.vae.settings import Settings
from hiwae_jax.data import registry

GRADIENT = Settings().gradient
# The rebuilt OMNIGLOT stands in the table of OMNIGLOT, under a heading of its own.
PUBLISHED = {table.dataset: table for table in published.TABLES} | {published.REBUILT: published.OMNIGLOT}


def titles() -> dict[str, str]:
    """The data sets in the order of the document, with their names in it: the published ones, then all others."""
    known = registry.entries()
    order = sorted(PUBLISHED, key=lambda name: PUBLISHED[name].number)
    return {name: known[name].title for name in dict.fromkeys([*order, *known])}


class Block(NamedTuple):
    """The results of one architecture on one data set.

    Attributes:
      dataset: a name of `titles()`.
      architecture: "mlp" or "conv".
      published: the published table, None if there is none.
      cells: the result that is shown, by row and K.
      candidates: all results of the same row and K.
    """

    dataset: str
    architecture: str
    published: published.Table | None
    cells: dict[tuple[Row, int], Result]
    candidates: dict[tuple[Row, int], list[Result]]


def row_of(settings: Settings) -> Row:
    """The row of a table."""
    return settings.model, settings.encoder_updates


def samples_of(settings: Settings) -> int:
    """The number of samples K; the VAE has one."""
    return 1 if settings.model == "vae" else settings.num_samples


def row_title(row: Row) -> str:
    """The row's name in tables."""
    model, updates = row
    return title(model) + {1: "", 2: ", encoder twice"}.get(updates, f", encoder {updates} times")


def means(result: Result, name: str) -> np.ndarray:
    """One of `evaluation.FIGURES` by seed, [seeds]; lower is better, bounds are negated."""
    values = np.asarray(result.content[name]["mean"])
    return -values if name.endswith("bound") else values


def best(candidates: Sequence[Result]) -> Result:
    """The best mean validation NLL, among those evaluated on the most images and with the most samples."""

    def effort(result: Result) -> tuple[int, int]:
        return result.content["nll_images"][0], result.settings.nll_samples

    most = max(map(effort, candidates))
    return min((r for r in candidates if effort(r) == most), key=lambda r: means(r, "validation_nll").mean())


def make_block(results: Sequence[Result], dataset: str, architecture: str) -> Block:
    """Choose what is shown of one data set and architecture, trained with the default gradient."""
    candidates: dict[tuple[Row, int], list[Result]] = {}
    for result in results:
        settings = result.settings
        if (settings.dataset, settings.architecture, settings.gradient) == (dataset, architecture, GRADIENT):
            candidates.setdefault((row_of(settings), samples_of(settings)), []).append(result)
    cells = {cell: best(several) for cell, several in candidates.items()}
    return Block(dataset, architecture, PUBLISHED.get(dataset), cells, candidates)


def rows_of(block: Block) -> list[Row]:
    """The published rows, then others that were run."""
    order = {model: number for number, model in enumerate(MODELS)}
    run = sorted({row for row, _ in block.cells}, key=lambda row: (row[1], order.get(row[0], len(order)), row[0]))
    return list(dict.fromkeys([*(block.published.nll if block.published else ()), *run]))


def columns_of(block: Block) -> list[int]:
    """The published K and others that were run."""
    return sorted({*(block.published.num_samples if block.published else ()), *(K for _, K in block.cells)})


def published_nll(block: Block, row: Row, K: int) -> float | None:
    """The published test NLL of a cell, None if there is none."""
    return block.published.nll.get(row, {}).get(K) if block.published else None


def standard_errors(values: np.ndarray, reference: float) -> float | None:
    """How many standard errors over seeds the mean is above the reference; None without a spread."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return float((np.mean(values) - reference) / (spread / np.sqrt(len(values)))) if spread > 0.0 else None


def nll_text(block: Block, row: Row, K: int, marks: dict[Settings, str]) -> str:
    """Test NLL of a cell: ours, the published one, and the difference in standard errors."""
    theirs, result = published_nll(block, row, K), block.cells.get((row, K))
    if result is None:
        return "-" if theirs is None else f"not run ({theirs:.2f})"
    ours = over_seeds(means(result, "test_nll")) + marks[result.settings]
    if theirs is None:
        return ours
    same_images = block.published.dataset == block.dataset
    distance = standard_errors(means(result, "test_nll"), theirs) if same_images else None
    return f"{ours} ({theirs:.2f})" if distance is None else f"{ours} ({theirs:.2f}; {distance:+.1f} s.e.)"


def sources(shown: Sequence[Result]) -> tuple[dict[Settings, str], str]:
    """A mark for each result, and a note for each origin; marks are empty if all results have one origin."""
    in_table = dict.fromkeys(("model", "gradient"), "") | dict.fromkeys(("num_samples", "encoder_updates"), 1)
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in shown:
        provenance = result.content["provenance"]
        machine = tuple(provenance[name] for name in ("device", "processor", "jax"))
        key = (result.settings._replace(**in_table), *result.content["nll_images"], result.content["data"]["checksum"])
        groups.setdefault((*key, machine), []).append(result)
    letters = (
        "".join(letter) for length in (1, 2) for letter in itertools.product(string.ascii_lowercase, repeat=length)
    )
    marks, notes = {}, []
    for group, letter in zip(groups.values(), letters, strict=False):
        marks |= {result.settings: f" [{letter}]" if len(groups) > 1 else "" for result in group}
        notes.append(f"- {f'[{letter}] ' if len(groups) > 1 else ''}{_source(group)}")
    return marks, "\n".join(notes)


def _source(group: Sequence[Result]) -> str:
    """The note on results whose settings are equal, except for row, K and gradient."""
    settings, content = group[0].settings, group[0].content
    contents = [result.content for result in group]
    machine = content["provenance"]

    def over(name: str) -> str:
        return _range((content[name] for content in contents), ",.0f")

    def error(name: str) -> str:
        return f"{max(max(content['test_nll'][name]) for content in contents):.3f}"

    context = f"context {settings.hidden[-1]}" if settings.architecture == "conv" else f"layers {settings.hidden}"
    patience = f", patience {settings.patience} epochs" if settings.patience else ""
    images = [f"{'all ' if settings.nll_images == 0 else ''}{count:,}" for count in content["nll_images"]]
    return (
        f"{count(len(group), 'cell')} of {count(settings.seeds, 'seed')}: {settings.architecture}, {context}, "
        f"{settings.latent} latents, {settings.proposal_hidden} hidden units of conditionals; "
        f"{over('steps')} steps of {settings.batch_size} (asked for {settings.steps:,}{patience}), "
        f"learning rate {settings.learning_rate:g}, {settings.schedule}, warm-up {settings.warmup:,}, "
        f"free bits {settings.free_bits:g}, Polyak {settings.polyak:g}, clipping {settings.clip:g}. "
        f"NLL: {over('nll_samples')} samples of z, {images[0]} validation and {images[1]} test images; test NLL has "
        f"standard errors over images up to {error('standard_error')}, Monte Carlo errors up to "
        f"{error('monte_carlo_error')}. Data {content['data']['name']}, checksum {content['data']['checksum'][:8]}. "
        f"Computed on {machine['device']} ({machine['processor']}), jax {machine['jax']}, "
        f"{_range((content['provenance']['date'] for content in contents), '')}; a cell took {over('train_seconds')} s "
        f"to train and {over('evaluation_seconds')} s to evaluate."
    )


def count(number: int, noun: str) -> str:
    """The number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _range(values: Iterable[Any], form: str) -> str:
    values = sorted(values)
    return " to ".join(dict.fromkeys(format(value, form) for value in (values[0], values[-1])))
