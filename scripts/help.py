"""Print the Makefile's sections (`##@ Name`) and targets (`target: … ## what it does`)."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from scripts.console import BOLD, styled

FOOTER = """
RUNTIME=auto|docker|host picks where training and serving run; all other settings: .env.example"""


def lines(makefile: Iterable[str]) -> Iterator[str]:
    """The help text, from a Makefile's lines."""
    for line in makefile:
        if section := re.match(r"##@ (.+)", line):
            yield f"\n{styled(section.group(1), BOLD, sys.stdout)}"
        elif target := re.match(r"([\w-]+):.*?## (.+)", line):
            yield f"  make {target.group(1):<14} {target.group(2)}"


def main() -> None:
    print("Homeport: fine-tune open LLMs and serve them here, as Azure ML would.")
    for line in lines(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()):
        print(line)
    print(FOOTER)


if __name__ == "__main__":
    main()
