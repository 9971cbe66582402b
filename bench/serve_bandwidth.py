"""How fast this machine reads as many bytes as the model's weights are: what bounds a decode step.

    python -m bench.serve_bandwidth BYTES     prints {"bytes_per_second"}, the best of 20 passes

The largest of 64-bit integers, because torch computes that with all cores and nearly nothing but
reads; sums and dot products come out up to a third lower here.
"""

import json
import sys
import time

PASSES = 20


def main() -> None:
    import torch

    size = int(sys.argv[1]) // 8 * 8
    buffer = torch.arange(size // 8)
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        buffer.max()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"bytes_per_second": size / min(seconds)}))


if __name__ == "__main__":
    main()
