"""The pages and tables in the repository are what its result files say."""

import json
import pathlib

import pytest

from benchmarks.gradient_quality import tables as gradient_tables
from benchmarks.k_scaling import tables as k_scaling_tables
from benchmarks.overhead import tables as overhead_tables
from benchmarks.peers import tables as peer_tables
from experiments.tables import collected
from experiments.tables.document import appendix, document
from experiments.toy.comparison import compare, comparison_table

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
TABLES = {
    "k_scaling": k_scaling_tables.table,
    "overhead": overhead_tables.table,
    "peers": peer_tables.table,
    "gradient_quality": lambda content: gradient_tables.table(content["cells"]),
}
REMEDY = "run `make tables`"
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
    assert len(RENDERED) == 7


def test_the_pages_of_the_papers_tables_are_those_of_the_results():
    results = collected.read([RESULTS / "tables"])
    pages = {name: (ROOT / "docs" / name).read_text() for name in ("tables.md", "tables_mlp.md")}
    assert pages["tables.md"] == document(results, "tables.png", "tables_mlp.md"), REMEDY
    assert pages["tables_mlp.md"] == appendix(results, "tables.md"), REMEDY


def test_the_comparison_on_the_page_of_the_toy_is_that_of_the_results():
    content = json.loads((RESULTS / "toy_figures.json").read_text())
    assert comparison_table(compare(content["figure 3"]["results"])) in (ROOT / "docs" / "toy.md").read_text()
