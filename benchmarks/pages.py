"""Make every generated page and figure of the repository again from its result files; nothing is measured.

    python -m benchmarks.pages      # what `make tables` runs

These are the tables in `results/`, docs/tables.md and docs/tables_mlp.md, the tables of docs/toy.md and
docs/gradient_quality.md, the tables of proposals, gradients and measurements in docs/choosing.md, the two tables of
README.md, those of docs/performance.md, the entries of docs/reference/proposals.md, and the figures of all these pages.
They are also the numbers in the text of all pages that have a comment `<!-- numbers` (`benchmarks.numbers`).
Pictures of samples of fits, which are not in the repository, are drawn by other commands: figures 2 and 7 of the toy by
`python -m experiments.toy --figure 2 7`, and docs/start.png by `python -m experiments.toy.start_picture`.
"""

import functools
import inspect
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import hiwae_jax as hj
from benchmarks import (
    control_variates,
    cpu_devices,
    gap,
    measured,
    microbatch,
    models,
    numbers,
    performance,
    proposals,
    readme,
    step_parts,
    trained_cells,
)
from benchmarks.agreement import tables as agreement_tables
from benchmarks.gradient_quality import tables as gradient_tables
from benchmarks.k_scaling import tables as k_scaling_tables
from benchmarks.objectives import tables as objectives_tables
from benchmarks.overhead import tables as overhead_tables
from benchmarks.peers import tables as peer_tables
from experiments.tables import collected
from experiments.tables.curves import draw_curves
from experiments.tables.document import appendix, document
from experiments.tables.figure import draw_figure
from experiments.toy import figures as toy_figures
from experiments.toy import fits_table
from experiments.toy.comparison import compare, comparison_table
from experiments.toy.training import Fit
from hiwae_jax._gradients.registry import RULES

PROPOSALS = (
    "| proposal | weightings | pathwise gradients without bias | default | cost beside K evaluations of the model "
    "| when |\n| --- | --- | --- | --- | --- | --- |"
)
FIRST = ("independent", "hierarchical")  # in the table of proposals
GRADIENTS = (
    "| gradient | unbiased, where log_joint has no jumps | cost of a step over plain | noise | when |\n"
    "| --- | --- | --- | --- | --- |"
)
ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
MICROBATCH = ("microbatch.json", "microbatch_conv/microbatch.json")
# By the beginning of a file's name.
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "agreement": agreement_tables.table,
    "k_scaling": k_scaling_tables.table,
    "overhead": overhead_tables.table,
    "peers": peer_tables.table,
    "gradient_quality": lambda content: gradient_tables.table(content["cells"]),
    "objectives": lambda content: objectives_tables.table(content["cells"]),
    "control_variates": control_variates.table,
    "gap": gap.table,
    "microbatch": microbatch.table,
    "proposals": proposals.table,
    "step_parts": step_parts.table,
    "cpu_devices": cpu_devices.table,
    "trained_cells": trained_cells.table,
    "toy_paper": lambda content: comparison_table(compare(content["figure 3"]["results"])),
}


def _content(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def pages() -> dict[pathlib.Path, str]:
    """The text of every page that is made of result files."""
    found = {}
    for path in sorted(RESULTS.rglob("*.json")):
        for stem, table in TABLES.items():
            if path.stem.startswith(stem):
                found[path.with_suffix(".md")] = table(json.loads(path.read_text())) + "\n"
    results = collected.read([RESULTS / "tables"])
    found[DOCS / "tables.md"] = document(results, "tables.png", "tables_mlp.md")
    found[DOCS / "tables_mlp.md"] = appendix(results, "tables.md", "tables_mlp.png")
    front = with_table((ROOT / "README.md").read_text(), readme.paper_table(results))
    found[ROOT / "README.md"] = with_table(
        front, readme.peers_table([_content("peers.json"), _content("peers_second/peers.json")])
    )
    comparison = comparison_table(compare(_content("toy_figures.json")["figure 3"]["results"]))
    mixture = "\n".join([fits_table.HEADER, *map(fits_table.row, _content("toy_mixture.json")["results"])])
    trainings = fits_table.trainings_table([*_content("toy_training.json")["results"], *heads_after_long_training()])
    found[DOCS / "toy.md"] = (DOCS / "toy.md").read_text()
    for table in (comparison, mixture, trainings):
        found[DOCS / "toy.md"] = with_table(found[DOCS / "toy.md"], table)
    found[DOCS / "results.md"] = with_table((DOCS / "results.md").read_text(), models.gradients_table(results))
    found[DOCS / "faq.md"] = with_table((DOCS / "faq.md").read_text(), models.num_samples_table(results))
    choosing = with_table((DOCS / "choosing.md").read_text(), control_variates.table(_content("control_variates.json")))
    reference = DOCS / "reference" / "proposals.md"
    found[reference] = proposals_reference(reference.read_text())
    found[DOCS / "performance.md"] = performance_page((DOCS / "performance.md").read_text())
    choosing = with_table(choosing, proposals.table(_content("proposals.json")))
    choosing = with_table(with_table(choosing, proposals_table()), gradients_table())
    found[DOCS / "choosing.md"] = with_table(
        choosing, objectives_tables.short_table(_content("objectives.json")["cells"])
    )
    cells = _content("gradient_quality.json")["cells"]
    quality = with_table((DOCS / "gradient_quality.md").read_text(), gradient_tables.variance_table(cells))
    found[DOCS / "gradient_quality.md"] = with_table(quality, gradient_tables.bound_table(cells))
    return found | with_numbers(found)


def heads_after_long_training() -> list[dict[str, Any]]:
    """The fits of figure 3 of the toy at alpha 0 after the long training."""
    fits = _content("toy_figures.json")["figure 3"]["results"]
    return [fit for fit in fits if fit["settings"]["alpha"] == 0.0 and fit["settings"]["decay"]]


def performance_page(page: str) -> str:
    """docs/performance.md with its tables."""
    overhead = _content("overhead.json")
    for table in (
        performance.peers_table(_content("peers.json")),
        performance.allocator_table(_content("peers_malloc/peers.json")),
        step_parts.table(_content("step_parts.json")),
        performance.k_scaling_table(_content("k_scaling_cpu.json")),
        performance.overhead_table(overhead),
        performance.pytorch_table(overhead),
        performance.compile_table(overhead),
        cpu_devices.table(_content("cpu_devices.json")),
        microbatch.table({"cells": [cell for file in MICROBATCH for cell in _content(file)["cells"]]}),
    ):
        page = with_table(page, table)
    return page


def with_numbers(found: dict[pathlib.Path, str]) -> dict[pathlib.Path, str]:
    """The pages with numbers in their text, computed from result files; `found` has those with generated tables."""
    filled = {}
    for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]:
        text = found.get(path) or path.read_text()
        if numbers.COMMENT.search(text):
            filled[path] = numbers.fill(text, measured.NAMES, name=path.relative_to(ROOT).as_posix())
    return filled


def proposals_table() -> str:
    """The table of proposals: the section "Choosing" of the docstring of every public function that returns one."""
    return "\n".join([PROPOSALS, *map(proposal_row, proposals_in_order())])


def proposals_reference(page: str) -> str:
    """The page of the reference, with an entry for every function that returns a proposal."""
    entries = "".join(f"\n.. autofunction:: {function.__name__}\n" for function in proposals_in_order())
    return re.sub(r"(\n\.\. autofunction:: \w+\n)+", entries, page, count=1)


def proposals_in_order() -> list[Callable[..., hj.Proposal]]:
    """The public functions that return a proposal."""
    functions = [getattr(hj, name) for name in dict.fromkeys([*FIRST, *hj.__all__])]
    return [function for function in functions if _makes_proposal(function)]


def _makes_proposal(function: Any) -> bool:
    return inspect.isfunction(function) and inspect.signature(function).return_annotation in (hj.Proposal, "Proposal")


def proposal_row(function: Callable[..., hj.Proposal]) -> str:
    """The row of one proposal."""
    section = re.search(r"\nChoosing:\n(.*?)\n\n", inspect.getdoc(function) or "", flags=re.DOTALL)
    if section is None:
        raise ValueError(f"{function.__name__}: expected a section Choosing in its docstring, as CONTRIBUTING.md shows")
    found = dict(re.findall(r"^ +(\w+): (.*)\.$", re.sub(r"\n {4,}", " ", section[1]), flags=re.MULTILINE))
    columns = [found[name] for name in ("weightings", "gradients", "default", "cost", "when")]
    return f"| `{function.__name__}` | {' | '.join(columns)} |"


def gradients_table() -> str:
    """The table of gradient rules, as each rule describes itself."""
    rows = [
        f'| `"{rule.name}"` | {rule.unbiased} | {rule.cost} | {rule.noise} | {rule.when} |' for rule in RULES.values()
    ]
    return "\n".join([GRADIENTS, *rows])


def with_table(page: str, table: str) -> str:
    """The page, with this table in place of the one that has the same header, or at least its first column.

    A table of results gets new columns with new results.

    Raises:
      ValueError: the page has no such table, or several.
    """
    blocks = page.split("\n\n")
    header, headers = table.split("\n", 1)[0], [block.split("\n", 1)[0] for block in blocks]
    places = [number for number, found in enumerate(headers) if found == header]
    if not places:
        first_column = header.split("|")[:2]
        places = [number for number, found in enumerate(headers) if found.split("|")[:2] == first_column]
    if len(places) != 1:
        raise ValueError(f"expected one table with the header {header}, got {len(places)}")
    blocks[places[0]] = table + ("\n" if blocks[places[0]].endswith("\n") else "")
    return "\n\n".join(blocks)


def figures() -> dict[pathlib.Path, Callable[[pathlib.Path], None]]:
    """The functions that draw the figures of the pages into a file."""
    toy = _content("toy_figures.json")["figure 3"]["results"]
    k_scaling = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("k_scaling_*.json"))]
    draw: dict[str, Callable[[pathlib.Path], Any]] = {
        "tables": functools.partial(draw_figure, collected.read([RESULTS / "tables"])),
        "tables_mlp": functools.partial(draw_figure, collected.read([RESULTS / "tables"]), architecture="mlp"),
        "tables_curves": functools.partial(draw_curves, collected.read([RESULTS / "tables"])),
        "toy_figure3": functools.partial(toy_figures.draw_all_boxes, toy),
        "toy_paper_figure3": functools.partial(
            toy_figures.draw_all_boxes, _content("toy_paper.json")["figure 3"]["results"]
        ),
        "toy_figure4": functools.partial(toy_figures.draw_correlation, [Fit(result, None) for result in toy]),
        "k_scaling": functools.partial(k_scaling_tables.draw, k_scaling),
        "gap": functools.partial(gap.draw_figure, _content("gap.json")),
        "overhead": functools.partial(overhead_tables.draw, _content("overhead.json")),
        "peers": functools.partial(peer_tables.draw_figure, _content("peers.json")),
        "gradient_quality": functools.partial(gradient_tables.draw_figure, _content("gradient_quality.json")["cells"]),
        "gradient_quality_bounds": functools.partial(
            gradient_tables.draw_bounds, _content("gradient_quality.json")["cells"]
        ),
    }
    return {DOCS / f"{name}.png": function for name, function in draw.items()}


def main() -> None:
    """Write all pages and figures, and print the names of those that changed."""
    for path, text in pages().items():
        _replace(path, text.encode())
    for path, draw in figures().items():
        before = path.read_bytes() if path.exists() else b""
        draw(path)
        if path.read_bytes() != before:
            print(f"changed: {path.relative_to(ROOT)}")


def _replace(path: pathlib.Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)
        print(f"changed: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
