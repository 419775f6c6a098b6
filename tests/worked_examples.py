"""The worked examples of CONTRIBUTING.md, run as they stand there."""

import pathlib
import re

CONTRIBUTING = pathlib.Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"


def example(heading):
    """What the first block of Python under this heading defines, by name."""
    _, _, section = CONTRIBUTING.read_text().partition(f"\n## {heading}\n")
    code = re.search(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)
    assert code, f"CONTRIBUTING.md has no block of Python under the heading {heading!r}"
    names = {}
    exec(compile(code[1], f"CONTRIBUTING.md, {heading}", "exec"), names)
    return names
