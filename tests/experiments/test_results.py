"""The pages, tables and figures in the repository are those of its result files."""

import json
import pathlib

import pytest

from benchmarks import numbers, pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
PAGES = pages.pages()


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
        words = (origin["command"] or "").split()
        assert not [word for word in words if word.startswith("/")], "paths of a machine: write DIR, or leave them out"
    assert max(map(len, path.read_text().splitlines())) <= 1_200


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_is_that_of_its_result_files(path):
    assert path.read_text() == PAGES[path], f"{path.name} is not what the files in results/ give: run `make tables`"


def test_every_table_and_figure_is_generated_but_those_of_samples():
    numbered = [path for path in PAGES if numbers.COMMENT.search(path.read_text())]
    expected = {path.relative_to(ROOT).as_posix() for path in [*RESULTS.rglob("*.md"), *numbered]}
    written = {path.relative_to(ROOT).as_posix() for path in PAGES}
    assert (
        expected
        | {
            "README.md",
            "docs/reference/proposals.md",
            *(
                f"docs/{name}.md"
                for name in ("choosing", "gradient_quality", "performance", "tables", "tables_mlp", "toy")
            ),
        }
        == written
    )
    drawn = {path.name for path in pages.figures()}
    assert {path.name for path in (ROOT / "docs").glob("*.png")} - drawn == {
        "start.png",
        "toy_figure2.png",
        "toy_figure7.png",
    }


def test_a_table_of_a_page_is_replaced_by_the_one_with_its_header():
    page = "a\n\n| x |\n| --- |\n| 1 |\n"
    assert pages.with_table(page, "| x |\n| --- |\n| 2 |") == page.replace("| 1 |", "| 2 |")
    wider = "| x | K = 2 |\n| --- | --- |\n| 1 | 3 |"
    assert pages.with_table(page, wider) == page.replace("| x |\n| --- |\n| 1 |", wider)
    with pytest.raises(ValueError, match=r"expected one table with the header \| y \|, got 0"):
        pages.with_table(page, "| y |\n| --- |\n| 1 |")
