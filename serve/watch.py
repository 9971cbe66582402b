"""Takes edits of request handling while the server runs; the weights stay where they are.

With SERVE_WATCH=true it looks at the files of serve/ a few times a second. When one changed, all
modules of request handling are imported anew and must build; only then do they answer requests.
Where they do not, the old ones go on and the log says why. What cannot be replaced (the engine, and
what outlives a reload: live.py) is named instead.
"""

import importlib
import logging
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from serve import live

log = logging.getLogger("azmlinfsrv.serve")

HERE = Path(__file__).resolve().parent
POLL_SECONDS = 0.25
FIXED = (
    "admission",
    "answer",
    "auth",
    "debugging",
    "engine",
    "errors",
    "kept",
    "live",
    "metrics",
    "model",
    "request",
    "requestlog",
    "score",
    "server",
    "settings",
    "startup",
    "watch",
    "weights",
    "worker",
)
"""Modules whose objects outlive a reload, and what those are made of."""

Stamps = dict[Path, tuple[int, int]]


def start() -> None:
    threading.Thread(target=_watch, args=(_stamps(),), name="watch", daemon=True).start()
    log.info("watching %s: edits of request handling take effect at once", HERE)


def reload() -> bool:
    """Put request handling as it stands on disk in the place of the old; False where it fails."""
    old = {name: sys.modules[name] for name in sys.modules if _replaceable(name)}
    _forget(old)
    importlib.invalidate_caches()
    try:
        started = time.monotonic()
        live.rebuild()
    except BaseException as error:  # whatever is wrong with the new, the old must go on
        _forget([name for name in sys.modules if _replaceable(name)])
        sys.modules.update(old)
        for name, module in old.items():
            package, _, last = name.rpartition(".")
            setattr(sys.modules[package], last, module)
        log.error("the edit is not taken, the code before it goes on: %s", _why(error))
        return False
    log.info("the edit is live after %.0f ms", 1000 * (time.monotonic() - started))
    return True


def _watch(seen: Stamps) -> None:
    while True:
        time.sleep(POLL_SECONDS)
        now = _stamps()
        changed = [path for path in now.keys() | seen.keys() if now.get(path) != seen.get(path)]
        seen = now
        if fixed := sorted(path for path in changed if not _replaceable(_module(path))):
            names = ", ".join(str(path.relative_to(HERE.parent)) for path in fixed)
            log.warning("%s changed: start the server anew to use it", names)
        if any(_replaceable(_module(path)) for path in changed):
            reload()


def _stamps() -> Stamps:
    """Time and size of each source file; one that is just being replaced is seen the next time."""
    found: Stamps = {}
    for path in HERE.rglob("*.py"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found[path] = (stat.st_mtime_ns, stat.st_size)
    return found


def _module(path: Path) -> str:
    parts = path.relative_to(HERE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _replaceable(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == "serve" and len(parts) > 1 and parts[1] not in FIXED


def _forget(names: Iterable[str]) -> None:
    """Both places that an import looks at: the list of modules, and the package's attributes."""
    for name in names:
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(last, None)


def _why(error: BaseException) -> str:
    """One line: what, and the line of ours where it is."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    where = ""
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if Path(path).is_relative_to(HERE):
            where = f"{path}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{where}{type(error).__name__}: {error}"
