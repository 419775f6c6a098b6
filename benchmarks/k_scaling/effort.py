"""How much `benchmarks.k_scaling` measures on a device."""

import os
from typing import NamedTuple

from benchmarks.k_scaling.cells import Sizes

MOST_PROGRAMS = 12  # that the host of an accelerator compiles side by side


class Effort(NamedTuple):
    """How much is measured on a device.

    Attributes:
      sizes: of batch and networks.
      seconds: that a cell is timed for.
      rows: at which the products of the decoder are timed.
      squares: sizes of the square matrices whose products are timed.
      programs: that processes compile side by side, before they are timed one after the other.
    """

    sizes: Sizes
    seconds: float
    rows: tuple[int, ...]
    squares: tuple[int, ...]
    programs: int = 1


def effort(*, accelerator: bool, smoke: bool) -> Effort:
    """The effort that suits the device, or a small one for a smoke test."""
    if smoke:
        return Effort(Sizes(4, 20, 16, 3, 5, 12), 0.02, (8, 16), (16, 32))
    if accelerator:
        # Each program takes seconds to compile there, and the largest sizes are the fastest.
        programs = max(1, min(MOST_PROGRAMS, (os.cpu_count() or 1) - 2))
        return Effort(Sizes(), 0.7, (100_000, 500_000), (8_192,), programs)
    return Effort(Sizes(), 3.0, (300, 600, 1_000, 2_000, 6_400), (512, 1_024, 2_048, 3_072))
