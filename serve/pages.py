"""The two pages for people, each one self-contained file, and the policy that keeps it so."""

import base64
import hashlib
import re
from pathlib import Path

PLAYGROUND = Path(__file__).with_name("playground.html")


def playground() -> str:
    """The chat page."""
    return PLAYGROUND.read_text(encoding="utf-8")


def headers(page: str) -> dict[str, str]:
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy(page),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def policy(page: str) -> str:
    """Nothing is loaded, and only the page's own style and script run, whatever a model writes."""
    return (
        f"default-src 'none'; script-src {_hashes(page, 'script')}; "
        f"style-src {_hashes(page, 'style')}; connect-src http: https:; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(page: str, tag: str) -> str:
    """The source expressions of the page's inline elements; 'none' without any."""
    found = []
    for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found.append(f"'sha256-{digest}'")
    return " ".join(found) or "'none'"
