"""How Azure asks a starting server whether it lives, by the size of the model that it must load.

Azure downloads the model before the server starts. While the server loads it, nobody answers, and a
liveness probe that fails too often starts the container again; so the first one waits for loading.
A readiness probe that fails only keeps requests away, so it asks from early on.
"""

import math
from dataclasses import dataclass

LOAD_BYTES_PER_SECOND = 100_000_000
"""Reading weights from the machine's disk, on the slow side; a network disk of Azure reads 125 to
200 MB/s."""
START_SECONDS = 50
"""Start of Python and the engine, besides the weights."""
COMPILE_BYTES = 2_000_000_000
COMPILE_SECONDS = 180
"""From this size on the engine also compiles and captures its kernels (vLLM: 1 to 2 minutes)."""
LONGEST_DELAY = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Seconds and counts of the liveness probe; Azure's meaning of each."""

    initial_delay: int
    period: int = 10
    timeout: int = 5
    """The server answers within 2 s even while it generates; this leaves room for a busy CPU."""
    failure_threshold: int = 30
    success_threshold: int = 1

    def liveness(self) -> dict[str, int]:
        """As a deployment's `liveness_probe`."""
        return self._probe(self.initial_delay, self.failure_threshold)

    def readiness(self) -> dict[str, int]:
        """As a deployment's `readiness_probe`: from early on, for as long as the other."""
        longest = self.initial_delay + self.period * self.failure_threshold
        return self._probe(self.period, math.ceil(longest / self.period))

    def _probe(self, delay: int, failures: int) -> dict[str, int]:
        return {
            "initial_delay": delay,
            "period": self.period,
            "timeout": self.timeout,
            "success_threshold": self.success_threshold,
            "failure_threshold": failures,
        }


def probes_for(model_bytes: int) -> Probes:
    """Probes for a model of that many bytes of weights."""
    seconds = START_SECONDS + model_bytes / LOAD_BYTES_PER_SECOND
    if model_bytes >= COMPILE_BYTES:
        seconds += COMPILE_SECONDS
    return Probes(initial_delay=min(LONGEST_DELAY, 10 * math.ceil(seconds / 10)))
