"""Names for what comes from the user, whose type is the user's own."""

from typing import Any

Params = Any  # any pytree
Example = Any  # one observation: an array or a pytree
