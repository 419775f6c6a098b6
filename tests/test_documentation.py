"""Links between the pages lead somewhere where Markdown is read as it stands; the site has every page."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
PAGES = [page for page in PAGES if "measured" not in page.relative_to(ROOT).parts]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors of the headings of a page, as code-hosting sites and the documentation site make them."""
    text = CODE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    wrong = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_the_reference_has_every_public_name_once():
    import hiwae_jax as hj
    from hiwae_jax import data, nn

    text = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    found = re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE)
    assert sorted(found) == sorted([*hj.__all__, *nn.__all__, *data.__all__])


def test_a_link_out_of_docs_leads_to_the_page_that_the_site_has():
    import importlib.util

    spec = importlib.util.spec_from_file_location("links", DOCS / "_extensions" / "links_out_of_docs.py")
    links = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(links)
    text = "[a](../CONTRIBUTING.md#names) [b](../results/peers.md) [c](../experiments/toy) [d](../README.md#x)"
    expected = "[a](contributing.md#names) [b](measured/peers.md) [c](../experiments/toy) [d](index.md)"
    assert links.on_the_site(text, "choosing") == expected
    assert links.on_the_site("[a](../../CONTRIBUTING.md)", "gallery/digits") == "[a](../contributing.md)"


def test_the_version_is_the_same_everywhere():
    import hiwae_jax as hj

    patterns = {
        "CITATION.cff": r"^version: (.*)$",
        "README.md": r"^  version = \{(.*)\},$",
        "CHANGELOG.md": r"^## (\S+) \(",
    }
    found = {name: re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)[1] for name, pattern in patterns.items()}
    found["pyproject.toml"] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found == dict.fromkeys(found, hj.__version__)
