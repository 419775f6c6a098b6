"""The pages that show the tables of Huang et al. (2019) beside our results: one for each kind of networks."""

import itertools
from collections.abc import Sequence

import numpy as np

from experiments.shared.markdown import table as markdown
from experiments.shared.spread import over_seeds
from experiments.tables import published
from experiments.tables.cells import (
    ANY_ALPHA,
    GRADIENT,
    PUBLISHED,
    Block,
    columns_of,
    comparable,
    count,
    difference_text,
    drawn_datasets,
    make_block,
    means,
    published_of,
    row_of,
    row_title,
    rows_of,
    samples_of,
    shown_row,
    sources,
    titles,
)
from experiments.tables.collected import Result
from experiments.tables.published import Row
from experiments.vae import sweeps
from experiments.vae.evaluation import FIGURES
from experiments.vae.settings import Settings

ARCHITECTURES = {"conv": "residual networks as in the paper (conv)", "mlp": "small MLPs (mlp)"}
SEARCH = "caltech-search"
REBUILT = (
    "These images were made from the drawings by an inferred recipe. A result on them must not be equated with "
    "published ones, so those do not stand beside it."
)
OF_THE_PAPER = """# Tables of Huang et al. (2019)

Made by `make tables` from {number} of `experiments.vae` and from
[published.json](../experiments/tables/published.json), not edited by hand.

All figures are in nats, and lower is better. Bounds are printed negated, as in the paper. The negative log-likelihood
(NLL) is minus the estimate of log p(x). This page has the paper's residual networks.
[The tables of small MLPs]({appendix}) have the same grids with small MLPs, which compare with each other
and not with the paper.

A line "ours" has the mean over seeds +- their standard deviation, or one number where there is one seed. A line
"published" has the mean and the standard deviation of the paper, over 5 seeds, or 3 in Table 3. A line "difference" is
ours minus published. Its brackets divide it by its standard error, which is made of both spreads and both numbers of
seeds. One seed has no spread, so the difference stands alone. The spreads include neither the choice of images nor
Monte Carlo error. The notes below each table give both, and how long the training was.

At K = 1 the weighting has nothing to share out, and H-IWAE is one model for all alphas. The paper trained it three
times. One run of ours stands beside all three.

NLL samples count samples of z: 2,000 of them with K = 5 are 400 draws of K samples. The paper's released code takes
2,000 draws of K samples. So its NLL is closer to -log p(x), and lower for the same model
([by how much](results.md#why-some-numbers-are-above-the-published-ones)).

If a cell was run with several settings, the table shows the one with the best mean validation NLL, among those that
were evaluated on the most images and with the most samples. The test set plays no part in this choice. All cells were
trained with the gradient "{gradient}", except those under "Which gradient". Letters in square
brackets point to the notes below the table."""
OF_OTHER_NETWORKS = """# Tables of small MLPs

Made by `make tables` from {number} of `experiments.vae`, not edited by hand.

These are the grids of [the paper's tables]({main}) with small MLPs in place of its residual networks. That page says
what the figures mean. The networks differ, so no published number stands here. Within a table the models compare.
Runs of one model under several names stand there once.

A cell is the mean over seeds +- their standard deviation, or one number where there is one seed."""
CAPTION = """*Published means with standard deviations over seeds, and ours as diamonds where they were run. The scales
differ: the bars show one nat. "Two updates" is H-IWAE with the encoder updated twice in a minibatch.*"""
CAPTION_OF_OTHERS = """*Means with standard deviations over seeds. A nat has the same height in all panels. "Two
updates" is H-IWAE with the encoder updated twice in a minibatch. At K = 1 all alphas are one model.*"""
GRADIENTS = f"""Each difference is from "{GRADIENT}", and lower is better. Seeds share initialisation and
minibatches, so differences are taken seed by seed. The table shows their mean, and its standard error in brackets. ESS
is the effective sample size at the end of training, between 1 and K, over training and validation examples. The seconds
are those of training all seeds."""
REACHED = """This section compares mean test NLL with the published mean. It includes only cells with exactly the
settings of the sweeps with the paper's budget (mnist, omniglot, caltech and caltech-search in
`experiments/vae/sweeps.py`)."""
NOT_RUN = """The commands have the paper's budget. The sweeps mnist-short, omniglot-short and caltech-short are short
trainings of some of these cells, see [Experiments](experiments.md)."""


def sweep_of(**wanted: str | int) -> str | None:
    """The first sweep with cells that have these settings."""
    for name, grids in sweeps.SWEEPS.items():
        if any(all(value in grid.get(field, ()) for field, value in wanted.items()) for grid in grids):
            return name
    return None


def command(sweep: str) -> str:
    """The command line that runs a sweep."""
    return f"`python -m experiments.vae --sweep {sweep} --data-dir DIR`"


def cells_table(block: Block, K: int) -> str | None:
    """All figures of all rows at one K beside the published ones, with notes; None if there are neither."""
    rows = rows_of(block, K)
    if not rows:
        return None
    shown = [block.cells[row, K] for row in rows if (row, K) in block.cells]
    marks, notes = sources(shown)
    lines = [line for row in rows for line in row_lines(block, row, K, marks)]
    header = ["model", *([""] if comparable(block) else []), *map(_figure_title, FIGURES)]
    choices = [choice_text(block, row, K) for row in rows if len(block.candidates.get((row, K), [])) > 1]
    return "\n\n".join([markdown(header, lines), *(["\n".join([notes, *choices])] if shown else [])])


def row_lines(block: Block, row: Row, K: int, marks: dict[Settings, str]) -> list[list[str]]:
    """Ours, and for every published cell of the row that one and the difference, without ours if it was not run."""
    result, lines = block.cells.get((row, K)), []
    if result is not None:
        lines.append(["ours" + marks[result.settings], *(over_seeds(means(result, name)) for name in FIGURES)])
    if not comparable(block):
        return [[row_title(row) + marks[result.settings], *lines[0][1:]]]
    seeds = block.published.seeds
    for theirs, cell in published_of(block, row, K).items():
        which = f", {row_title(theirs).removeprefix('H-IWAE ')}" if row[0] == ANY_ALPHA else ""
        lines.append(
            [f"published{which}", *(f"{number.mean:.2f} +- {number.deviation:.2f}" for number in cell.values())]
        )
        if result is not None:
            texts = (difference_text(means(result, name), number, seeds=seeds) for name, number in cell.items())
            lines.append(["difference", *texts])
    return [[row_title(row) if number == 0 else "", *line] for number, line in enumerate(lines)]


def choice_text(block: Block, row: Row, K: int) -> str:
    """Which of several results is shown, by the settings in which they differ."""
    several, chosen = block.candidates[row, K], block.cells[row, K].settings
    differing = [name for name in Settings._fields if len({getattr(r.settings, name) for r in several}) > 1]
    values = ", ".join(f"{name} {getattr(chosen, name)}" for name in differing)
    return f"- {row_title(row)}, K = {K}: of {len(several)} results the one with {values}."


def _figure_title(name: str) -> str:
    return name.replace("_", " ").replace("nll", "NLL")


def gradients_section(results: Sequence[Result]) -> list[str]:
    """Cells that were trained with other gradients than the default one, paired by seed with that one."""
    groups: dict[Settings, list[Result]] = {}
    for result in results:
        groups.setdefault(result.settings._replace(gradient=""), []).append(result)
    groups = {key: group for key, group in groups.items() if {r.settings.gradient for r in group} != {GRADIENT}}
    if not groups:
        return []
    parts = ["## Which gradient", GRADIENTS]
    for key in sorted(groups, key=lambda key: (list(titles()).index(key.dataset), key[1:])):
        group = sorted(groups[key], key=lambda r: (r.settings.gradient != GRADIENT, r.settings.gradient))
        marks, notes = sources(group)
        heading = f"{titles()[key.dataset]}, {ARCHITECTURES[key.architecture]}, {row_title(row_of(key))}"
        others = folded("The other columns, and how it was run", [_other_columns(group, marks), notes])
        parts += [f"**{heading}, K = {samples_of(key)}**", _compared_columns(group, marks), others]
    return parts


COMPARED = ("test_bound", "test_nll")


def _compared_columns(group: Sequence[Result], marks: dict[Settings, str]) -> str:
    """Test bound and test NLL, each with its difference from the first result."""
    lines = []
    for result in group:
        pairs = [(over_seeds(means(result, name)), paired_text(result, group[0], name)) for name in COMPARED]
        lines.append([result.settings.gradient + marks[result.settings], *itertools.chain(*pairs)])
    return markdown(["gradient", *itertools.chain(*((_figure_title(name), "difference") for name in COMPARED))], lines)


def _other_columns(group: Sequence[Result], marks: dict[Settings, str]) -> str:
    """The other figures, the effective sample size and the seconds."""
    names = [name for name in FIGURES if name not in COMPARED]
    lines = []
    for result in group:
        figures = [over_seeds(means(result, name)) for name in names]
        ess = [row[-1] for row in result.content["curves"]["effective_sample_size"]]
        seconds = f"{result.content['train_seconds']:,.0f}"
        lines.append([result.settings.gradient + marks[result.settings], *figures, over_seeds(ess), seconds])
    return markdown(["gradient", *map(_figure_title, names), "ESS", "seconds"], lines)


def paired_text(result: Result, baseline: Result, name: str) -> str:
    """Mean difference from the baseline seed by seed, and its standard error; "-" without a baseline."""
    if baseline is result or baseline.settings.gradient != GRADIENT:
        return "-"
    difference = means(result, name) - means(baseline, name)
    error = f" ({np.std(difference, ddof=1) / np.sqrt(len(difference)):.3f})" if len(difference) > 1 else ""
    return f"{np.mean(difference):+.3f}{error}"


def reached_section(results: Sequence[Result]) -> list[str]:
    """Whether the published mean is reached, for cells with exactly the settings of the paper's sweeps."""
    paper = {cell for name in sweeps.PAPERS for cell in sweeps.expand(sweeps.SWEEPS[name], {})}
    eligible = [result for result in results if result.settings in paper]
    lines = []
    for table in published.TABLES:
        block = make_block(eligible, table.dataset, "conv")
        for (row, K), cell in table.cells.items():
            result = block.cells.get((shown_row(row, K), K))
            if result is not None:
                ours, theirs = means(result, "test_nll"), cell["test_nll"].mean
                name = f"Table {table.details[K]}, {row_title(row)}, K = {K}"
                lines.append([name, over_seeds(ours), f"{theirs:.2f}", "yes" if np.mean(ours) <= theirs else "no"])
    table = markdown(["cell", "ours", "published", "ours at or below"], lines) if lines else "No such cell was run."
    return ["## At or below the published mean", REACHED, table]


def missing_section(results: Sequence[Result]) -> list[str]:
    """The published cells that no result with the paper's networks has, and the commands that run them."""
    lines = []
    for dataset in PUBLISHED:
        block, sweep = make_block(results, dataset, "conv"), sweep_of(dataset=dataset, architecture="conv")
        cells = dict.fromkeys((shown_row(row, K), K) for row, K in block.published.cells)
        missing = [cell for cell in cells if cell not in block.cells]
        if missing:
            text = _cells_text(sorted(missing, key=lambda cell: rows_order(block, cell)))
            lines.append(f"- {titles()[dataset]}: {text}; the command is {command(sweep)}.")
    search = sweeps.expand(sweeps.SWEEPS[SEARCH], {})
    done = len(set(search) & {result.settings for result in results})
    lines.append(
        f"- The search of Table 3: {done} of {count(len(search), 'cell')} were run; the command is {command(SEARCH)}."
    )
    return ["## Not run", NOT_RUN, "\n".join(lines)]


def rows_order(block: Block, cell: tuple[Row, int]) -> tuple[int, int]:
    """The place of a cell in a list by row and K."""
    rows = list(dict.fromkeys(shown_row(row, K) for row, K in block.published.cells))
    return rows.index(cell[0]), cell[1]


def _cells_text(cells: Sequence[tuple[Row, int]]) -> str:
    by_row = itertools.groupby(cells, key=lambda cell: cell[0])
    return "; ".join(f"{row_title(row)} K = {', '.join(str(K) for _, K in several)}" for row, several in by_row)


def _tables(results: Sequence[Result], architecture: str) -> list[str]:
    """The sections of the published data sets."""
    parts = []
    for table in published.TABLES:
        datasets = [name for name in titles() if PUBLISHED.get(name) is table]
        blocks = [make_block(results, dataset, architecture) for dataset in datasets]
        columns = sorted({K for block in blocks for K in columns_of(block)})
        if columns:
            title = table.title[0].upper() + table.title[1:]
            parts.append(f"## {table.numbers}: {table.title}" if architecture == "conv" else f"## {title}")
        for K in columns:
            number = f"Table {table.details[K]}: " if architecture == "conv" and K in table.details else ""
            inside = []
            for block in blocks:
                text = cells_table(block, K)
                if text is not None:
                    rebuilt = [f"**{titles()[block.dataset]}**", REBUILT] if block.dataset == published.REBUILT else []
                    inside += [*rebuilt, text]
            ran = any(cell_K == K for block in blocks for _, cell_K in block.cells)
            parts += [f"### {number}K = {K}", folded("All columns", inside, is_open=ran and architecture == "conv")]
    return parts


def folded(title: str, parts: Sequence[str], *, is_open: bool = False) -> str:
    """Parts of a page that show only their title until the reader opens it; those with `is_open` begin open."""
    return "\n\n".join([f"<details{' open' if is_open else ''}>\n<summary>{title}</summary>", *parts, "</details>"])


def _others(results: Sequence[Result], architecture: str) -> list[str]:
    """The sections of data sets of which nothing is published."""
    parts = []
    for dataset in (name for name in titles() if name not in PUBLISHED):
        block = make_block(results, dataset, architecture)
        for K in columns_of(block):
            parts += [f"## Other data: {titles()[dataset]}, K = {K}", cells_table(block, K) or ""]
    return parts


def document(results: Sequence[Result], figure: str, appendix: str) -> str:
    """The page of the paper's networks; `figure` is the address of its figure and `appendix` of the other page."""
    here = [result for result in results if result.settings.architecture == "conv"]
    number = count(len(here), "result")
    parts = [OF_THE_PAPER.format(number=number, appendix=appendix, gradient=GRADIENT)]
    parts += [
        f"![Test NLL against K, ours and published]({figure})",
        CAPTION,
        *_tables(here, "conv"),
        *_others(here, "conv"),
    ]
    parts += gradients_section(here) + reached_section(here) + missing_section(here)
    return "\n\n".join(parts) + "\n"


def appendix(results: Sequence[Result], main: str, figure: str) -> str:
    """The page of small MLPs; `main` is the address of the paper's tables, and `figure` that of the page's figure."""
    here = [result for result in results if result.settings.architecture == "mlp"]
    parts = [OF_OTHER_NETWORKS.format(number=count(len(here), "result"), main=main)]
    parts += [f"![Test NLL against K]({figure})", CAPTION_OF_OTHERS] if drawn_datasets(here, "mlp") else []
    parts += _tables(here, "mlp") + _others(here, "mlp") + gradients_section(here)
    return "\n\n".join(parts) + "\n"
