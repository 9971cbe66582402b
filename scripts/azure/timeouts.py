"""The chain of time limits of an answer, so that each part ends before the one that waits for it.

generation (the server) < request_timeout_ms (Azure's router) <= 180,000 ms < client (ours)
"""

from dataclasses import dataclass

from scripts.errors import UsageError

AZURE_MAX_MS = 180_000
"""Largest request_timeout_ms of a managed online endpoint (Azure, managed online deployment YAML
schema); 5,000 is what it takes where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Three limits, each longer than the one before."""

    generation_seconds: float = 120
    """Longest that the server lets a request wait and generate (SERVE_REQUEST_SECONDS)."""
    request_timeout_ms: int = 150_000
    """After this Azure answers 408."""
    client_seconds: float = 190
    """How long our client waits, so that it hears Azure's own answer."""

    def check(self) -> None:
        """UsageError where a part would still work when the one that waits has given up."""
        if not 1 <= self.generation_seconds * 1000 < self.request_timeout_ms:
            raise UsageError(
                f"the server may generate for {self.generation_seconds:g} s, but Azure gives up "
                f"after {self.request_timeout_ms / 1000:g} s: make the first the smaller one."
            )
        if self.request_timeout_ms > AZURE_MAX_MS:
            raise UsageError(
                f"request_timeout_ms is {self.request_timeout_ms}, and Azure takes no more than "
                f"{AZURE_MAX_MS}."
            )
        if self.client_seconds * 1000 <= AZURE_MAX_MS:
            raise UsageError(
                f"the client waits {self.client_seconds:g} s: it must be more than Azure's "
                f"{AZURE_MAX_MS // 1000} s, to hear what Azure answers."
            )
