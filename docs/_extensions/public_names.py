"""Public names of the library: each is in the reference, and each in code font on a page is a link to its entry."""

import ast
import importlib
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

PACKAGES = ("hiwae_jax", "hiwae_jax.nn", "hiwae_jax.data")
CODE = re.compile(r"(?:hj\.|hiwae_jax\.|nn\.|data\.)*([A-Za-z_]\w*)(\(.*\))?")
CHOICE = re.compile(r'^( +)("\w+": )')  # a line of a docstring that explains one value of an argument
SHORT = {
    r"~?jaxlib\._jax\.Array|~?jax\.Array": "Array",
    r"str \| type\[\S*Any\] \| \S*dtype \| \S*SupportsDType": "DTypeLike",
    r"<class 'jax\.numpy\.(\w+)'>": r"jax.numpy.\1",
}
LOG = logging.getLogger(__name__)


def public_names() -> dict[str, str]:
    """The full name of everything public, by its short name."""
    return {name: f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__}


class Links(SphinxPostTransform):
    """Make links of public names in code font, such as `make_bound` or `hj.independent(q, num_samples=5)`."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        """For one page."""
        names = public_names()
        for literal in list(self.document.findall(nodes.literal)):
            match = CODE.fullmatch(literal.astext())
            if match is None or match.group(1) not in names or _is_taken(literal):
                continue
            target = {"refdomain": "py", "reftype": "obj", "reftarget": names[match.group(1)], "refexplicit": True}
            link = addnodes.pending_xref("", refdoc=self.env.docname, refwarn=False, **target)
            literal.replace_self(link)
            link += literal


def _is_taken(literal: nodes.literal) -> bool:
    """Whether a link here would be inside of another, or in a title."""
    taken, parent = (nodes.reference, addnodes.pending_xref, nodes.title), literal.parent
    while parent is not None:
        if isinstance(parent, taken):
            return True
        parent = parent.parent
    return False


def attribute_docstrings() -> dict[str, list[str]]:
    """The docstrings below assignments, of the public names that are values, from the modules that assign them."""
    found = {}
    for package in PACKAGES:
        origin = inspect.getfile(importlib.import_module(package))
        for node in ast.walk(ast.parse(pathlib.Path(origin).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                texts = ModuleAnalyzer.for_module(node.module).find_attr_docs()
                for alias in node.names:
                    if ("", alias.name) in texts:
                        found[f"{package}.{alias.name}"] = texts["", alias.name]
    return found


def docstring(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """For the event `autodoc-process-docstring`: values have their own docstrings, and sources stand out."""
    if what == "data":
        lines[:] = attribute_docstrings().get(name, [])
    lines[:] = [re.sub(r"^(Reference|Source):", r"**\1.**", _escaped(line)) for line in _with_lists(lines)]


def signature(
    app: Any, what: str, name: str, item: Any, options: Any, text: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """For the event `autodoc-process-signature`: networks have that of `__init__`, and arrays a short name."""
    if what == "class" and "*args" in (text or ""):
        of_init = inspect.signature(item.__init__)
        arguments = list(of_init.parameters.values())[1:]
        text = stringify_signature(
            of_init.replace(parameters=arguments, return_annotation=inspect.Signature.empty), unqualified_typehints=True
        )
    return _short(text), _short(returned)


def _short(text: str | None) -> str | None:
    for long, short in SHORT.items():
        text = text and re.sub(long, short, text)
    return text


def _with_lists(lines: list[str]) -> list[str]:
    """The lines with a list where several of them explain the values of an argument."""
    found, depth = [], None
    for line in lines:
        start = CHOICE.match(line)
        if start:
            found += ["", f"{start.group(1)}- {line.strip()}"]
            depth = len(start.group(1))
        else:
            inside = depth is not None and line.startswith(" " * depth)
            found.append(f"  {line}" if inside else line)
            depth = depth if inside else None
    return found


def _escaped(line: str) -> str:
    """The line with shapes such as [*batch] and sizes such as |z| as they stand, outside of code."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = line.split("`")
    parts[::2] = [part.replace("[*", r"[\*").replace("|", r"\|") for part in parts[::2]]
    parts[::2] = [re.sub(r"docs/(\w+)\.md", r":doc:`/\1`", part) for part in parts[::2]]
    return "`".join(parts)


def missing(app: Any, env: Any) -> Iterator[None]:
    """For the event `env-check-consistency`: warn of public names without an entry."""
    entries = env.domains["py"].objects
    for name in sorted(set(public_names().values()) - set(entries)):
        LOG.warning("the reference has no entry for %s: add it to a page in docs/reference", name)
    return iter(())


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_post_transform(Links)
    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-process-signature", signature)
    app.connect("env-check-consistency", missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
