"""Print again the comparison of shared with separate z_0 that `experiments.toy --figure 3` has made.

python -m experiments.toy_comparison --output runs/toy    # the folder that `experiments.toy` wrote into
"""

import pathlib

from experiments.shared import command_line, stored
from experiments.toy.comparison import compare, comparison_table

NAME = "experiments.toy_comparison"


def main(arguments: list[str] | None = None) -> None:
    """Print the table of figure 3 of a finished run."""
    parser = command_line.Parser(NAME, __doc__)
    folder = pathlib.Path("runs/toy")
    parser.add_argument("--output", type=command_line.existing_folder, default=folder, help="default: %(default)s")
    options = parser.parse_args(arguments)
    path = options.output / "figures.json"
    with command_line.refusals(NAME):
        remedy = "make it with: python -m experiments.toy --figure 3"
        content = stored.read_json(path, remedy=remedy)
        try:
            text = comparison_table(compare(content["figure 3"]["results"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: has no fits of figure 3 ({error!r}); {remedy}") from error
    print(text)


if __name__ == "__main__":
    main()
