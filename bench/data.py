"""`make bench-data`: conversion, its peak memory, and tokenisation, against the usual ways.

python -m bench.data
"""

import sys

from bench import data_conversion, data_tokens
from bench.table import finish


def main() -> int:
    """Measure all; writes outputs/bench/data.json."""
    # the sides of the conversion are processes that count from this one's size: nothing heavy yet
    results = [*data_conversion.measure(), *data_conversion.memory()]
    finish("data", [*results, *data_tokens.measure()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
