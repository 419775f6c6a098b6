"""The cells of a table: which result each shows, its distance from the published number, and notes on its origin."""

import itertools
import string
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.tables import published
from experiments.tables.collected import Result
from experiments.tables.published import Number, Row
from experiments.vae.models import MODELS, alpha_of, title
from experiments.vae.settings import Settings
from hiwae_jax.data import registry

GRADIENT = Settings().gradient
ANY_ALPHA = "hiwae"  # one sample leaves the weighting nothing to share out, so at K = 1 all alphas are one model
# The rebuilt OMNIGLOT stands in the table of OMNIGLOT, under a heading of its own.
PUBLISHED = {table.dataset: table for table in published.TABLES} | {published.REBUILT: published.OMNIGLOT}


def titles() -> dict[str, str]:
    """The data sets in the order of the document, with their names in it: the published ones, then all others."""
    known = registry.entries()
    order = sorted(PUBLISHED, key=lambda name: published.TABLES.index(PUBLISHED[name]))
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
    return shown_row((settings.model, settings.encoder_updates), samples_of(settings))


def shown_row(row: Row, K: int) -> Row:
    """The row in which a model stands: at K = 1 H-IWAE has one for all alphas."""
    is_hierarchical = row[0] == ANY_ALPHA or alpha_of(row[0]) is not None
    return (ANY_ALPHA, row[1]) if K == 1 and is_hierarchical else row


def samples_of(settings: Settings) -> int:
    """The number of samples K; the VAE has one."""
    return 1 if settings.model == "vae" else settings.num_samples


def row_title(row: Row) -> str:
    """The row's name in tables."""
    model, updates = row
    name = "H-IWAE, any alpha" if model == ANY_ALPHA else title(model)
    return name + {1: "", 2: ", encoder twice"}.get(updates, f", encoder {updates} times")


def means(result: Result, name: str) -> np.ndarray:
    """One of `evaluation.FIGURES` by seed, [seeds]; lower is better, bounds are negated."""
    values = np.asarray(result.content[name]["mean"])
    return -values if name.endswith("bound") else values


def best(candidates: Sequence[Result]) -> Result:
    """The best mean validation NLL, among those evaluated on the most images and with the most samples.

    A result whose seeds another one of equal settings has too, with more of them, is not chosen: it would be chosen
    where its seeds are the lucky ones.
    """
    most_seeds: dict[Settings, int] = {}
    for result in candidates:
        one = result.settings._replace(seeds=1)
        most_seeds[one] = max(most_seeds.get(one, 0), result.settings.seeds)
    candidates = [r for r in candidates if r.settings.seeds == most_seeds[r.settings._replace(seeds=1)]]

    def effort(result: Result) -> tuple[int, int]:
        return result.content["nll_images"][0], result.settings.nll_samples

    most = max(map(effort, candidates))
    return min((r for r in candidates if effort(r) == most), key=lambda r: means(r, "validation_nll").mean())


def drawn_datasets(results: Sequence[Result], architecture: str) -> list[str]:
    """The data sets of the figure: those that were run, and with the paper's networks all that are published."""
    run = {result.settings.dataset for result in results if result.settings.architecture == architecture}
    of_paper = architecture == "conv"
    wanted = [name for name in titles() if name in PUBLISHED]
    return [name for name in wanted if name in run or (of_paper and PUBLISHED[name].dataset == name)]


def make_block(results: Sequence[Result], dataset: str, architecture: str) -> Block:
    """Choose what is shown of one data set and architecture, trained with the default gradient."""
    candidates: dict[tuple[Row, int], dict[Settings, Result]] = {}
    for result in results:
        settings = result.settings
        if (settings.dataset, settings.architecture, settings.gradient) == (dataset, architecture, GRADIENT):
            row, K = row_of(settings), samples_of(settings)
            # Runs of one model under several names have equal numbers; the first one is as good as any.
            same = settings._replace(model=row[0], num_samples=K)
            candidates.setdefault((row, K), {}).setdefault(same, result)
    several = {cell: list(found.values()) for cell, found in candidates.items()}
    cells = {cell: best(found) for cell, found in several.items()}
    return Block(dataset, architecture, PUBLISHED.get(dataset), cells, several)


def comparable(block: Block) -> bool:
    """Whether the published numbers are of the same networks and images, so that they stand beside ours."""
    return block.architecture == "conv" and block.published is not None and block.published.dataset == block.dataset


def published_of(block: Block, row: Row, K: int) -> dict[Row, dict[str, Number]]:
    """The published cells that belong to a row at K; three of them, for three alphas, where one run serves all."""
    if not comparable(block):
        return {}
    return {
        theirs: cell for (theirs, k), cell in block.published.cells.items() if (shown_row(theirs, k), k) == (row, K)
    }


def rows_of(block: Block, K: int) -> list[Row]:
    """The rows at this K: the published ones, then others that were run."""
    order = {model: number for number, model in enumerate(MODELS)}
    run = [row for row, k in block.cells if k == K]
    run = sorted(run, key=lambda row: (row[1], order.get(row[0], len(order)), row[0]))
    theirs = block.published.cells if comparable(block) else {}
    return list(dict.fromkeys([*(shown_row(row, k) for row, k in theirs if k == K), *run]))


def columns_of(block: Block) -> list[int]:
    """The K of the published cells that stand beside ours, and others that were run."""
    return sorted({*(block.published.num_samples if comparable(block) else ()), *(K for _, K in block.cells)})


def difference_text(ours: np.ndarray, theirs: Number, *, seeds: int) -> str:
    """Our mean over seeds minus the published one, of so many seeds, in nats and in standard errors of both together.

    The standard error is `sqrt(s^2 / n + s_p^2 / n_p)`, with the standard deviations and numbers of seeds of ours and
    of the published runs; one seed has none, and the difference stands alone.
    """
    difference = float(np.mean(ours)) - theirs.mean
    if len(ours) == 1:
        return f"{difference:+.2f}"
    error = np.sqrt(np.var(ours, ddof=1) / len(ours) + theirs.deviation**2 / seeds)
    return f"{difference:+.2f} ({difference / error:+.1f} s.e.)"


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
    reverse = ", the reverse model updated once" if settings.twice == "encoder" else ""
    images = [f"{'all ' if settings.nll_images == 0 else ''}{count:,}" for count in content["nll_images"]]
    return (
        f"{count(len(group), 'cell')} of {count(settings.seeds, 'seed')}: {settings.architecture}, {context}, "
        f"{settings.latent} latents, {settings.proposal_hidden} hidden units of conditionals; "
        f"{over('steps')} steps of {settings.batch_size} (asked for {settings.steps:,}{patience}), "
        f"learning rate {settings.learning_rate:g}, {settings.schedule}, warm-up {settings.warmup:,}, "
        f"free bits {settings.free_bits:g}, Polyak {settings.polyak:g}, clipping {settings.clip:g}{reverse}. "
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
