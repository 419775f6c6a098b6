"""Numbers and tables as Markdown."""

from collections.abc import Iterable, Sequence

import numpy as np


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])


def over_seeds(means: Sequence[float] | np.ndarray) -> str:
    """The mean over seeds, and the standard deviation between them if there are several."""
    spread = f" +- {np.std(means, ddof=1):.2f}" if len(means) > 1 else ""
    return f"{np.mean(means):.2f}{spread}"
