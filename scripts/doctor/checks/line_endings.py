"""Scripts with Windows' line endings, which bash and make cannot read: a checkout with autocrlf."""

from collections.abc import Iterator
from pathlib import Path

from scripts.doctor import Finding
from scripts.doctor.here import Here

READ_BY_SHELLS = ("Makefile", "images/Dockerfile", "images/lock", "docker-compose.yml")


def check(here: Here) -> Iterator[Finding]:
    files = [here.root / name for name in READ_BY_SHELLS]
    wrong = [path for path in files if path.is_file() and b"\r\n" in here.text(path)]
    if not wrong:
        yield Finding(check="line endings", severity="ok", sentence="as in the repository")
        return

    def mend() -> str:
        for path in wrong:
            _mend(path)
        return f"line endings of {', '.join(path.name for path in wrong)} are LF now"

    yield Finding(
        check="line endings",
        severity="error",
        sentence=f"{', '.join(path.name for path in wrong)} has CRLF, which bash cannot read",
        remedy="make doctor FIX=1, and git config core.autocrlf input",
        fix=mend,
    )


def _mend(path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    part.chmod(path.stat().st_mode)
    part.replace(path)
