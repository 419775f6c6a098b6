"""The pages and tables in the repository are what its result files say."""

import json
import pathlib

import pytest

from benchmarks.gradient_quality import tables as gradient_tables
from benchmarks.k_scaling import tables as k_scaling_tables
from benchmarks.objectives import command as objectives
from benchmarks.overhead import tables as overhead_tables
from benchmarks.peers import tables as peer_tables
from experiments.tables import collected
from experiments.tables.document import document
from experiments.toy import command as toy
from experiments.toy.comparison import compare, comparison_table

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
TABLES = {
    "k_scaling": k_scaling_tables.table,
    "overhead": overhead_tables.table,
    "peers": peer_tables.table,
    "gradient_quality": lambda content: gradient_tables.table(content["cells"]),
    "objectives": lambda content: objectives.table(content["cells"]),
}
RENDERED = sorted(RESULTS.rglob("*.md"))


def name(path):
    return path.relative_to(RESULTS).as_posix()


def origins(content):
    """All provenances in a result file."""
    found = content["provenance"] if "provenance" in content else [cell["provenance"] for cell in content["cells"]]
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=name)
def test_a_result_file_says_what_computed_it(path):
    content = json.loads(path.read_text())
    assert isinstance(content["history"], list)
    assert origins(content)
    for origin in origins(content):
        assert {"commit", "command", "device", "jax", "python"} <= origin.keys()
    assert max(map(len, path.read_text().splitlines())) <= 1_200


@pytest.mark.parametrize("path", RENDERED, ids=name)
def test_a_table_is_that_of_its_result_file(path):
    (table,) = (table for stem, table in TABLES.items() if path.stem.startswith(stem))
    assert path.read_text() == table(json.loads(path.with_suffix(".json").read_text())) + "\n"


def test_every_benchmark_has_its_table():
    assert len(RENDERED) == 8


def test_the_page_of_the_papers_tables_is_that_of_the_results():
    assert (ROOT / "docs" / "tables.md").read_text() == document(collected.read([RESULTS / "tables"]), "tables.png")


def test_the_comparison_on_the_page_of_the_toy_is_that_of_the_results():
    content = json.loads((RESULTS / "toy_figures.json").read_text())
    assert comparison_table(compare(content["figure 3"]["results"])) in (ROOT / "docs" / "toy.md").read_text()


def test_the_mixture_on_the_page_of_the_toy_is_that_of_the_results():
    results = json.loads((RESULTS / "toy_mixture.json").read_text())["results"]
    assert "\n".join([toy.HEADER, *map(toy.row, results)]) in (ROOT / "docs" / "toy.md").read_text()
