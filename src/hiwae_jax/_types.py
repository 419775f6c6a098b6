"""Types of values that the user chooses."""

from typing import Any

Params = Any  # any pytree
Example = Any  # one observation: an array or a pytree
