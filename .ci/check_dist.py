"""Checks what `make wheel` built: `python .ci/check_dist.py dist [TAG]`.

The wheel has all files of the library and nothing else, its version is that of the library (and of the tag), and the
page of the package index has no link that leads nowhere there.
"""

import email
import pathlib
import re
import sys
import tarfile
import zipfile

CHANGELOG = pathlib.Path(__file__).resolve().parents[1] / "CHANGELOG.md"
LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|href)=[\"']([^\"']+)[\"']")
ABSOLUTE = re.compile(r"https?://|#|mailto:")


def only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    """The one file of this pattern."""
    (path,) = folder.glob(pattern)
    return path


def files_of_wheel(path: pathlib.Path) -> dict[str, str]:
    """The text of each file of a wheel."""
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name).decode() for name in wheel.namelist()}


def files_of_sdist(path: pathlib.Path) -> set[str]:
    """The names of the files in a source distribution, below its folder."""
    with tarfile.open(path) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}


def problems_of_page(page: str) -> list[str]:
    """What a reader of the package index would stumble over."""
    links = [markdown or html for markdown, html in LINK.findall(page)]
    found = [f"a relative link: {link}" for link in links if not ABSOLUTE.match(link)]
    return found + ["a formula, which is not rendered there"] * ("$$" in page) + ["no links"] * (not links)


def problems(folder: pathlib.Path, tag: str | None) -> list[str]:
    """Everything that is wrong with the files in a folder."""
    wheel, source = files_of_wheel(only(folder, "*.whl")), files_of_sdist(only(folder, "*.tar.gz"))
    (metadata,) = (email.message_from_string(text) for name, text in wheel.items() if name.endswith("/METADATA"))
    (version,) = re.findall(r'^__version__ = "(.*)"$', wheel["hiwae_jax/__init__.py"], re.MULTILINE)
    found = problems_of_page(metadata.get_payload())
    if metadata["Version"] != version:
        found.append(f"version {metadata['Version']}, but __version__ is {version}")
    if tag not in (None, f"v{version}"):
        found.append(f"tag {tag}, but the version is {version}")
    if tag and not re.search(rf"^## {version} \(\d{{4}}-\d\d-\d\d\)$", CHANGELOG.read_text(), re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading with the date of {version}")
    expected = {name.removeprefix("src/") for name in source if name.startswith("src/")}
    installed = {name for name in wheel if ".dist-info/" not in name}
    found += [f"in the sources or in the wheel, and not in both: {name}" for name in sorted(expected ^ installed)]
    if "hiwae_jax/py.typed" not in installed:
        found.append("no py.typed")
    return found


if __name__ == "__main__":
    wrong = problems(pathlib.Path(sys.argv[1]), *(sys.argv[2:] or [None]))
    print(*(wrong or ["the sdist and the wheel are as they should be"]), sep="\n")
    sys.exit(bool(wrong))
