"""Links of pages to files outside of docs/, which are right where Markdown is read as it stands.

On the site, links to pages that the site has, such as ../CONTRIBUTING.md, lead to these pages, and links to tables in
results/ to pages made of them. Links to other files become downloads.
"""

import pathlib
import re
import shutil
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLES = "measured"  # the folder in docs/ for the tables of results/, which is not in the repository
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"\]\(((?:\.\./)+)([^)#\s]+)(#[^)\s]*)?\)")

SPREAD = re.compile(r"(?<=\d) \+- (?=\d)")  # on the site a number and its spread stay on one line


def copy_tables(app: Any) -> None:
    """Put the tables of results/ where pages can be made of them, under the names of their files."""
    target = pathlib.Path(app.srcdir) / TABLES
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted((ROOT / "results").rglob("*.md")):
        name = path.relative_to(ROOT / "results")
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        title = f"results/{name.with_suffix('')}"
        copy.write_text(f"---\norphan: true\n---\n\n# {title}\n\n{path.read_text()}")


def on_the_site(text: str, page: str) -> str:
    """The text of a page with links to other pages of the site in place of those out of docs/."""

    def replace(match: re.Match[str]) -> str:
        ups, path, anchor = match.group(1), match.group(2), match.group(3) or ""
        depth = page.count("/")
        if ups.count("../") != depth + 1:
            return match.group(0)
        inside = "../" * depth
        if path in PAGES:
            return f"]({inside}{PAGES[path]}{'' if path == 'README.md' else anchor})"
        if path.startswith("results/") and path.endswith(".md"):
            return f"]({inside}{TABLES}/{path.removeprefix('results/')})"
        return match.group(0)

    return LINK.sub(replace, text)


def rewrite(app: Any, page: str, source: list[str]) -> None:
    """For the event `source-read`."""
    source[0] = SPREAD.sub("\u00a0\u00b1\u00a0", on_the_site(source[0], page))


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("builder-inited", copy_tables)
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
