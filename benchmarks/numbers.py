"""Numbers in the text of pages, computed from the result files.

A comment below a paragraph says where the numbers in the text above it come from. It is invisible to readers:

    Ours takes 0.52 to 0.93 of the time, and NumPyro 0.97.
    <!-- numbers
    0.52 to 0.93 of: peers("hiwae-dreg-chunks", 50), peers("hiwae-dreg-chunks", 5)
    NumPyro 0.97: peers("numpyro", 5)
    -->

Each line has words of the text, a colon, and a Python expression for each number among these words. Lines that are
indented go on with the expressions of the line before. `benchmarks.measured` has what they may call. The
decimals of a number are those that it is written with. `fill` puts the computed numbers in place of the written ones.
"""

import math
import re
import textwrap
from collections.abc import Mapping
from typing import Any

COMMENT = re.compile(r"^(?P<indent> *)<!-- numbers\n(?P<body>.*?)^ *-->", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^(?P<words>\S.*?): +(?P<expressions>.+(?:\n +.+)*)$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
HEADING = re.compile(r"^#+ .*$", re.MULTILINE)


def fill(page: str, names: Mapping[str, Any], *, name: str) -> str:
    """The page with the numbers that its comments compute.

    Args:
      page: the text of a page, with any number of comments.
      names: what the expressions may call or name.
      name: of the page, for messages.

    Raises:
      ValueError: the words of a line are not in the text, or are there twice; there are more or fewer numbers than
        expressions; an expression fails, or is no finite number. The message names page and line.
    """
    filled, end = "", 0
    for comment in COMMENT.finditer(page):
        text, body = page[end : comment.start()], textwrap.dedent(comment["body"])
        for entry in ENTRY.finditer(body):
            try:
                numbers = computed(entry["expressions"], names)
                text = _with_numbers(text, entry["words"], numbers)
                body = body.replace(entry[0], entry[0].replace(entry["words"], put(entry["words"], numbers), 1), 1)
            except ValueError as error:
                raise ValueError(f"{name}, numbers of {entry['words']!r}: {error}") from error
        rest = ENTRY.sub("", body).strip()
        if rest:
            raise ValueError(f"{name}: a line of <!-- numbers --> is 'WORDS: EXPRESSION, EXPRESSION', got {rest!r}")
        indent = comment["indent"]
        filled += f"{text}{indent}<!-- numbers\n{textwrap.indent(body, indent)}{indent}-->"
        end = comment.end()
    return filled + page[end:]


def computed(expressions: str, names: Mapping[str, Any]) -> list[float]:
    """The values of several Python expressions with commas between them."""
    try:
        values = eval(f"({expressions},)", dict(names))
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{expressions}: {kind}{error}") from error
    for value in values:
        if isinstance(value, (str, bool)) or not hasattr(value, "__float__") or not math.isfinite(value):
            raise ValueError(f"{expressions}: expected finite numbers, got {value!r}")
    return [float(value) for value in values]


def put(words: str, numbers: list[float]) -> str:
    """The words with these numbers, each with as many decimals as the one in its place."""
    written = NUMBER.findall(words)
    if len(written) != len(numbers):
        raise ValueError(f"the words have {len(written)} numbers, and the expressions give {len(numbers)}")
    following = iter(numbers)
    return NUMBER.sub(lambda match: _like(match[0], next(following)), words)


def _like(written: str, number: float) -> str:
    decimals = len(written.partition(".")[2])
    sign = "+" if written.startswith("+") else "-"
    return format(round(number, decimals) + 0.0, f"{sign},.{decimals}f")  # 0.0 makes zero of minus zero


def _with_numbers(text: str, words: str, numbers: list[float]) -> str:
    """The text, in which the words occur once after the last heading, with other numbers in them."""
    headings = list(HEADING.finditer(text))
    start = headings[-1].end() if headings else 0
    pattern = r"(?<![\d.,])" + r"\s+".join(map(re.escape, words.split())) + r"(?!\w|\.\d)"
    places = list(re.finditer(pattern, text[start:]))
    if len(places) != 1:
        raise ValueError(
            f"expected these words once between the last heading, or comment with numbers, and this comment, "
            f"found them {len(places)} times"
        )
    low, high = start + places[0].start(), start + places[0].end()
    return text[:low] + put(text[low:high], numbers) + text[high:]
