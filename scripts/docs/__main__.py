"""Write the generated parts of docs/: errors.md, the tables of reference.md, and the drawing.

    python -m scripts.docs            writes what has changed
    python -m scripts.docs --check    writes nothing, and ends with 4 where something would change

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

from scripts.docs import ROOT, drawing, reference, table
from scripts.docs.sentences import Sentence, collect
from scripts.docs.symptoms import RULES, anchor, of

DOCS = ROOT / "docs"
TABLES = {
    "make targets": reference.targets,
    "make variables": reference.make_variables,
    "environment variables": reference.variables,
    "exit codes": reference.codes,
}
HEAD = """\
# Every error sentence

Each sentence that Homeport may print when something is wrong, by what you see. `…` stands for a
name, a number or another program's words. What a code means stands in
[reference.md](reference.md#exit-codes); `error` and `warning` are findings of `make doctor`, and
`HTTP …` is what the server answers. Written by `python -m scripts.docs`.
"""


def pages() -> dict[Path, str]:
    """Each page that has generated parts, as it should be."""
    written = {DOCS / name: text for name, text in drawing.drawings().items()}
    written[DOCS / "errors.md"] = errors()
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if "<!-- generated: " in text:
            written[path] = filled(text)
    return written


def filled(page: str) -> str:
    """The page with its tables made anew."""
    return re.sub(
        r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def errors() -> str:
    """docs/errors.md."""
    by_symptom: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in collect():
        by_symptom[of(sentence) or ""].append(sentence)
    parts = [HEAD]
    order = order_of((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    for symptom in sorted(by_symptom, key=lambda name: order.index(name) if name in order else -1):
        said = sorted(by_symptom[symptom], key=lambda one: one.text.lstrip("…:= "))
        rows = [(verbatim(one.text), one.code) for one in said]
        parts += [
            f"## {symptom}",
            "",
            f"[What to do](troubleshooting.md#{anchor(symptom)})",
            "",
            table(("Sentence", "Code"), rows),
            "",
        ]
    return "\n".join(parts)


def verbatim(text: str) -> str:
    """As code, so that nothing of it is taken for Markdown."""
    fence = "``" if "`" in text else "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def order_of(page: str) -> list[str]:
    """The symptoms as the page has them."""
    known = {name for name, _ in RULES}
    return [name for name in re.findall(r"^###? (.+)$", page, re.MULTILINE) if name in known]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.docs", description="Write the generated parts of docs/."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say what would change")
    arguments = parser.parse_args()
    stale = [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        print(f"{'stale' if arguments.check else 'wrote'}: {path.relative_to(ROOT)}")
        if not arguments.check:
            path.write_text(pages()[path], encoding="utf-8")
    return 4 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
