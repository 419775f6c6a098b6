"""The document that shows the tables of Huang et al. (2019) beside our results, section by section."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from experiments.shared.markdown import table as markdown
from experiments.shared.spread import over_seeds
from experiments.tables import published
from experiments.tables.cells import (
    GRADIENT,
    PUBLISHED,
    Block,
    columns_of,
    count,
    make_block,
    means,
    nll_text,
    published_nll,
    row_of,
    row_title,
    rows_of,
    samples_of,
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
    "published ones, so no difference from those is given."
)
INTRODUCTION = """# Tables of Huang et al. (2019)

Made by `python -m experiments.tables` from {number} of `experiments.vae`, not edited by hand.

All figures are in nats, and lower is better. Bounds are printed negated, as in the paper. The negative log-likelihood
(NLL) is minus the estimate of log p(x).

A cell is our mean over seeds +- their standard deviation, or one number where there is one seed. The brackets first
have the published value, which always belongs to the paper's residual networks. Then they say by how many standard
errors we are above (+) or below it (-). The standard error is ours alone: standard deviation over seeds / sqrt(seeds).
The paper's own spread over 5 seeds is known only to be {least} to {largest} (MNIST). Our spread includes neither the
choice of images nor Monte Carlo error. The notes below each table give both.

NLL samples count samples of z: 2,000 of them with K = 5 are 400 draws of K samples. The paper's released code takes
2,000 draws of K samples.

If a cell was run with several settings, the table shows the one with the best mean validation NLL, among those that
were evaluated on the most images and with the most samples. The test set plays no part in this choice. All cells were
trained with the gradient "{gradient}", except those under "Which gradient". Letters in square brackets point to the
notes below the table."""
NO_BOUNDS = "Of the published table only the test NLL was at hand, not its other columns."
GRADIENTS = f"""Each difference is from "{GRADIENT}", and lower is better. Seeds share initialisation and
minibatches, so differences are taken seed by seed. The table shows their mean, and its standard error in brackets. ESS
is the effective sample size at the end of training, between 1 and K, over training and validation examples. The seconds
are those of training all seeds."""
REACHED = """This section compares mean test NLL with the published mean. It includes only cells with exactly the
settings of the paper's sweeps (conv in `experiments/vae/sweeps.py`)."""


def sweep_of(**wanted: str | int) -> str | None:
    """The first sweep with cells that have these settings."""
    for name, grids in sweeps.SWEEPS.items():
        if any(all(value in grid.get(field, ()) for field, value in wanted.items()) for grid in grids):
            return name
    return None


def command(sweep: str, **chosen: int) -> str:
    """The command line that runs a sweep, or the cells of it that are chosen."""
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in chosen.items())
    return f"`python -m experiments.vae --sweep {sweep}{options} --data-dir DIR`"


def with_headings(blocks: Sequence[Block], render: Callable[[Block], str | None], **chosen: int) -> list[str]:
    """Every block that has results, and for every other one the sweep that would run it."""
    parts = []
    for block in blocks:
        text, sweep = render(block), sweep_of(dataset=block.dataset, architecture=block.architecture, **chosen)
        heading = f"**{titles()[block.dataset]}, {ARCHITECTURES[block.architecture]}**"
        if text is not None:
            parts += [heading, *([REBUILT] if block.dataset == published.REBUILT else []), text]
        elif sweep is not None:
            parts.append(f"{heading}: not run; the command is {command(sweep, **chosen)}.")
    return parts


def nll_table(block: Block) -> str | None:
    """Test NLL by row and K with its notes, None if nothing was run."""
    if not block.cells:
        return None
    rows, columns = rows_of(block), columns_of(block)
    cells = list(itertools.product(rows, columns))
    marks, notes = sources([block.cells[cell] for cell in cells if cell in block.cells])
    lines = [[row_title(row), *(nll_text(block, row, K, marks) for K in columns)] for row in rows]
    choices = [choice_text(block, *cell) for cell in cells if len(block.candidates.get(cell, [])) > 1]
    return markdown(["model", *(f"K = {K}" for K in columns)], lines) + "\n\n" + "\n".join([notes, *choices])


def choice_text(block: Block, row: Row, K: int) -> str:
    """Which of several results is shown, by the settings in which they differ."""
    several, chosen = block.candidates[row, K], block.cells[row, K].settings
    differing = [name for name in Settings._fields if len({getattr(r.settings, name) for r in several}) > 1]
    values = ", ".join(f"{name} {getattr(chosen, name)}" for name in differing)
    return f"- {row_title(row)}, K = {K}: of {len(several)} results the one with {values}."


def details_table(block: Block, K: int) -> str | None:
    """Bounds and NLL of all rows at one K with its notes, None if nothing was run."""
    rows = rows_of(block)
    shown = [block.cells[row, K] for row in rows if (row, K) in block.cells]
    if not shown:
        return None
    marks, notes = sources(shown)
    lines = []
    for row in rows:
        result = block.cells.get((row, K))
        ours = ["not run"] * 4 if published_nll(block, row, K) is not None else ["-"] * 4
        if result is not None:
            ours = [over_seeds(means(result, name)) for name in FIGURES[:4]]
        lines.append([row_title(row), *ours, nll_text(block, row, K, marks)])
    return markdown(["model", *map(_figure_title, FIGURES)], lines) + "\n\n" + notes


def _figure_title(name: str) -> str:
    return name.replace("_", " ").replace("nll", "NLL")


def gradients_section(results: Sequence[Result]) -> list[str]:
    """Cells that were trained with other gradients than the default one, paired by seed with that one."""
    groups: dict[Settings, list[Result]] = {}
    for result in results:
        groups.setdefault(result.settings._replace(gradient=""), []).append(result)
    groups = {key: group for key, group in groups.items() if {r.settings.gradient for r in group} != {GRADIENT}}
    if not groups:
        return ["## Which gradient", f'No cell was run with another gradient than "{GRADIENT}".']
    parts = ["## Which gradient", GRADIENTS]
    header = ["gradient", *map(_figure_title, FIGURES), "test bound, difference", "test NLL, difference"]
    for key in sorted(groups, key=lambda key: (list(titles()).index(key.dataset), key[1:])):
        group = sorted(groups[key], key=lambda r: (r.settings.gradient != GRADIENT, r.settings.gradient))
        marks, notes = sources(group)
        lines = []
        for result in group:
            name = result.settings.gradient + marks[result.settings]
            figures = [over_seeds(means(result, name)) for name in FIGURES]
            differences = [paired_text(result, group[0], name) for name in ("test_bound", "test_nll")]
            ess = [row[-1] for row in result.content["curves"]["effective_sample_size"]]
            seconds = f"{result.content['train_seconds']:,.0f}"
            lines.append([name, *figures, *differences, over_seeds(ess), seconds])
        heading = f"{titles()[key.dataset]}, {ARCHITECTURES[key.architecture]}, {row_title(row_of(key))}"
        parts += [f"**{heading}, K = {samples_of(key)}**", markdown([*header, "ESS", "seconds"], lines), notes]
    return parts


def paired_text(result: Result, baseline: Result, name: str) -> str:
    """Mean difference from the baseline seed by seed, and its standard error; "-" without a baseline."""
    if baseline is result or baseline.settings.gradient != GRADIENT:
        return "-"
    difference = means(result, name) - means(baseline, name)
    error = f" ({np.std(difference, ddof=1) / np.sqrt(len(difference)):.3f})" if len(difference) > 1 else ""
    return f"{np.mean(difference):+.3f}{error}"


def reached_section(results: Sequence[Result]) -> list[str]:
    """Whether the published mean is reached, for cells with exactly the settings of the paper's sweeps."""
    cells = itertools.chain.from_iterable(sweeps.expand(grids, {}) for grids in sweeps.SWEEPS.values())
    paper = {cell for cell in cells if cell.architecture == "conv"}
    eligible = [result for result in results if result.settings in paper]
    lines = []
    for table in published.TABLES:
        block = make_block(eligible, table.dataset, "conv")
        for row, K in itertools.product(table.nll, table.num_samples):
            theirs, result = published_nll(block, row, K), block.cells.get((row, K))
            if theirs is not None and result is not None:
                ours = means(result, "test_nll")
                reached = "yes" if np.mean(ours) <= theirs else "no"
                name = f"Table {table.number}, {row_title(row)}, K = {K}"
                lines.append([name, over_seeds(ours), f"{theirs:.2f}", reached])
    table = markdown(["cell", "ours", "published", "ours at or below"], lines) if lines else "No such cell was run."
    return ["## At or below the published mean", REACHED, table]


def missing_section(results: Sequence[Result]) -> list[str]:
    """The published cells that no result has, and the commands that run them."""
    lines = []
    for dataset, architecture in itertools.product(titles(), ARCHITECTURES):
        sweep = sweep_of(dataset=dataset, architecture=architecture)
        if sweep is None or dataset not in PUBLISHED:
            continue
        block = make_block(results, dataset, architecture)
        cells = [(row, K) for row, columns in block.published.nll.items() for K in columns]
        missing = [cell for cell in cells if cell not in block.cells]
        of_sweep = {(row_of(cell), samples_of(cell)) for cell in sweeps.expand(sweeps.SWEEPS[sweep], {})}
        heading = f"- Table {block.published.number}, {titles()[dataset]}, {architecture}:"
        for known, remedy in ((True, f"the command is {command(sweep)}"), (False, "no sweep has them")):
            listed = [cell for cell in missing if (cell in of_sweep) == known]
            if listed:
                lines.append(f"{heading} {_cells_text(listed)}; {remedy}.")
    search = sweeps.expand(sweeps.SWEEPS[SEARCH], {})
    done = len(set(search) & {result.settings for result in results})
    lines.append(
        f"- Table 3, search: {done} of {count(len(search), 'cell')} were run; the command is {command(SEARCH)}."
    )
    return ["## Not run", "Tables 4 to 11 have the cells of Tables 1 and 2.", "\n".join(lines)]


def _cells_text(cells: Sequence[tuple[Row, int]]) -> str:
    by_row = itertools.groupby(cells, key=lambda cell: cell[0])
    return "; ".join(f"{row_title(row)} K = {', '.join(str(K) for _, K in several)}" for row, several in by_row)


def document(results: Sequence[Result], figure: str) -> str:
    """The whole document; `figure` is the address of the figure in it."""
    least, largest = published.SPREAD
    number = count(len(results), "result file")
    parts = [INTRODUCTION.format(number=number, least=least, largest=largest, gradient=GRADIENT)]
    parts += [f"![Test NLL against K, ours and published]({figure})"]

    def blocks(table: published.Table | None) -> list[Block]:
        datasets = [name for name in titles() if PUBLISHED.get(name) is table]
        return [make_block(results, *pair) for pair in itertools.product(datasets, ARCHITECTURES)]

    for table in published.TABLES:
        parts += [f"## Table {table.number}: test NLL, {table.title}", *with_headings(blocks(table), nll_table)]
    for table in published.TABLES:
        here = blocks(table)
        for K in dict.fromkeys([*table.details, *sorted({K for block in here for _, K in block.cells})]):
            name = f"Table {table.details[K]}" if K in table.details else f"Beside Table {table.number}"
            parts += [f"## {name}: bounds and NLL, {table.title}, K = {K}"]
            parts += [NO_BOUNDS] if K in table.details else []
            parts += with_headings(here, lambda block, K=K: details_table(block, K), num_samples=K)
    others = [block for block in blocks(None) if block.cells]
    if others:
        parts += ["## Other data: test NLL", *with_headings(others, nll_table)]
    parts += gradients_section(results) + reached_section(results) + missing_section(results)
    return "\n\n".join(parts) + "\n"
