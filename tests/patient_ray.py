"""A Ray that gives its processes the time that a busy machine takes to start them, and not 30 seconds."""

import os
import time

SECONDS = 900
LIMITS = {
    "RAY_agent_register_timeout_ms": SECONDS * 1000,
    "RAY_gcs_server_port_wait_time_s": SECONDS,
    "RAY_raylet_start_wait_time_s": SECONDS,
    "RAY_worker_register_timeout_seconds": SECONDS,
}


def be_patient():
    """Let the Ray of this process, and of those that it starts, wait."""
    os.environ.update({name: str(limit) for name, limit in LIMITS.items()})
    from ray._private import services

    get_node = services.get_node

    def wait_for_node(*place):
        end = time.monotonic() + SECONDS
        while True:
            try:
                return get_node(*place)
            except RuntimeError:  # it has not begun yet
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)

    services.get_node = wait_for_node
