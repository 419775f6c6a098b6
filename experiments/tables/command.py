"""The tables of Huang et al. (2019) from results of `experiments.vae`, beside the published numbers.

    python -m experiments.tables                      # results/tables -> docs/tables*.md and docs/tables*.png
    python -m experiments.tables --collect runs       # first add what is finished in runs to results/tables
    python -m experiments.tables --results runs --output runs/tables.md

A folder of results is searched with all folders below it. Two results with the same settings and different numbers are
an error. If a cell of a table has several results, the one with the best validation NLL is shown. The published numbers
are in `published.json`. Everything else comes from the results, and nothing is interpreted. `make tables` also makes
the other generated pages and figures.
"""

import argparse
import pathlib

from experiments.shared import command_line
from experiments.tables import collected
from experiments.tables.cells import count, drawn_datasets
from experiments.tables.document import appendix, document
from experiments.tables.figure import draw_figure

NAME = "experiments.tables"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    results, output = pathlib.Path("results/tables"), pathlib.Path("docs/tables.md")
    parser.add_argument(
        "--results", nargs="+", type=pathlib.Path, default=[results], help=f"folders of results; default: {results}"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=output,
        help="the page of the paper's networks; the page of small MLPs goes beside it with _mlp in its name, and the "
        "figure as .png; default: %(default)s",
    )
    parser.add_argument(
        "--collect",
        nargs="+",
        type=command_line.existing_folder,
        metavar="DIR",
        help="first add the finished results in DIR to --results",
    )
    options = parser.parse_args(arguments)
    if options.collect and len(options.results) > 1:
        parser.error(f"--collect: expected one folder of --results to copy to, got {len(options.results)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Collect results if asked to, then write both pages and their figures."""
    options = parse(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder_of("--output", options.output)
        if options.output.suffix == ".png":
            raise ValueError(f"argument --output: expected the document, as tables.md, got {options.output}")
        if options.collect:
            command_line.make_folder("--results", options.results[0])
            for path in collected.collect(options.collect, options.results[0]):
                print(f"collected {path}, {path.stat().st_size:,} bytes")
        results = collected.read(options.results)
        if not results:
            folders = ", ".join(map(str, options.results))
            raise FileNotFoundError(f"no results of experiments.vae in {folders}; copy some there with --collect DIR")
    figure = options.output.with_suffix(".png")
    mlp = options.output.with_stem(options.output.stem + "_mlp")
    options.output.write_text(document(results, figure.name, mlp.name))
    mlp.write_text(appendix(results, options.output.name, mlp.with_suffix(".png").name))
    draw_figure(results, figure)
    if drawn_datasets(results, "mlp"):
        draw_figure(results, mlp.with_suffix(".png"), architecture="mlp")
    print(f"{count(len(results), 'result')}: {options.output}, {mlp} and {figure}")
