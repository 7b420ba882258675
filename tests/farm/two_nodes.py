"""A Ray of two simulated computers with one core each, for the tests of the farm.

It prints its address in a line. "kill" on standard input ends one of the two as a power cut would; the end of the input
ends all.
"""

import sys

from patient_ray import SECONDS, be_patient
from ray.cluster_utils import Cluster


def main() -> None:
    be_patient()
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=False)
    nodes = [cluster.add_node(num_cpus=1, wait=False) for _ in range(2)]
    cluster.wait_for_nodes(timeout=SECONDS)
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
