"""Prints the lowest versions that pyproject.toml allows, as constraints for pip; `make floors` tests them together."""

import pathlib
import re
import tomllib

PYPROJECT = pathlib.Path(__file__).resolve().parents[1] / "pyproject.toml"
FLOOR = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\w.]+)")


def floors(project: dict) -> list[str]:
    """The lines `name==version`; what has no lower limit, such as an exact version, gives none."""
    extras = project["optional-dependencies"].values()
    wanted = {*project["dependencies"], *(line for extra in extras for line in extra)}
    return sorted(f"{found['name']}=={found['version']}" for line in wanted if (found := FLOOR.match(line)))


if __name__ == "__main__":
    print(*floors(tomllib.loads(PYPROJECT.read_text())["project"]), sep="\n")
