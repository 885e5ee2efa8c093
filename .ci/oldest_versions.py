"""Print the oldest version that setup.cfg allows of each dependency, as constraints for pip.

    python .ci/oldest_versions.py EXTRA ... > constraints.txt

Covers the requirements of the installation and of the extras named.
"""

import configparser
import re
import sys
from pathlib import Path


def lower_bounds(requirements: str) -> list[str]:
    """Return "name==version" for each requirement of `requirements` that has a lower bound."""
    bounds = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?>=([\w.]+)", requirements, re.MULTILINE)
    return [f"{name}=={version}" for name, version in bounds]


def main() -> None:
    """Print the constraints, one a line."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    groups = [config["options"]["install_requires"]]
    groups += [config["options.extras_require"][extra] for extra in sys.argv[1:]]
    print("\n".join(dict.fromkeys(bound for group in groups for bound in lower_bounds(group))))


if __name__ == "__main__":
    main()
