"""Files that are replaced all or not at all, whatever happens meanwhile.

    Journal(folder, root).replace({"host.txt": b"…", "images/train.txt": b"…"})

The old ones lie in `folder` until the last new one is in place. They are put back at once where
that fails, and by `restore` at the next start where the process was killed.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """What a folder remembers of files below `root`."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._old = folder / "old"
        self._complete = folder / "complete"
        self._folder = folder
        self._root = root

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Put the new content in place of the old, by paths below the root."""
        self.forget()
        for name in files:
            kept = self._old / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._root / name, kept)
        self._complete.touch()
        os.sync()
        try:
            for name, content in files.items():
                _put(self._root / name, content)
        except BaseException:
            self.restore()
            raise
        self.forget()

    def restore(self) -> list[str]:
        """Put back what a replacement that did not end had replaced; the paths."""
        back: list[str] = []
        if self._complete.is_file():
            for kept in sorted(path for path in self._old.rglob("*") if path.is_file()):
                name = str(kept.relative_to(self._old))
                now = self._root / name
                if not now.is_file() or now.read_bytes() != kept.read_bytes():
                    _put(self._root / name, kept.read_bytes())
                    back.append(name)
        self.forget()
        return back

    def forget(self) -> None:
        self._complete.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    """Whole or not at all, with the mode that it has."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    shutil.copymode(path, new)
    os.replace(new, path)
