"""A Ray of two simulated computers with one core each, for the tests of the farm.

It prints its address in a line. "kill" on standard input ends one of the two as a power cut would; the end of the input
ends all.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray.cluster_utils import Cluster

TRIES = 10
"""Ray gives up after 30 seconds, in which a busy machine does not start it."""


def patiently(start: Callable[[], Any]) -> Any:
    for _ in range(TRIES - 1):
        with suppress(Exception):
            return start()
    return start()


def main() -> None:
    cluster = Cluster()
    patiently(lambda: cluster.add_node(num_cpus=0, include_dashboard=False))
    nodes = [patiently(lambda: cluster.add_node(num_cpus=1, wait=False)) for _ in range(2)]
    cluster.wait_for_nodes(timeout=300)
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    try:
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                sys.stdout.write("killed\n")
                sys.stdout.flush()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
