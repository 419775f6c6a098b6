"""A mean over seeds and its spread, as text."""

from collections.abc import Sequence

import numpy as np


def over_seeds(means: Sequence[float] | np.ndarray) -> str:
    """The mean over seeds, and the standard deviation between them if there are several."""
    spread = f" +- {np.std(means, ddof=1):.2f}" if len(means) > 1 else ""
    return f"{np.mean(means):.2f}{spread}"
