"""Break the engine on purpose, one line at a time, and see the tests notice.

    python tests/laws/break_laws.py [--only WORD] [--sample N --seed TEXT]

All of them take some minutes. Each entry of the tables in `breaks/`, one for each room of the core, replaces
one piece of text in a copy of the pack and names the test that must then fail. A law whose test still passes is no law.
"""

import importlib
import os
import sys
from pathlib import Path

from breaking import chosen, report, run_in_fork

TABLES = sorted(Path(__file__).with_name("breaks").glob("*.py"))
BREAKS = [entry for table in TABLES for entry in importlib.import_module(f"breaks.{table.stem}").BREAKS]


def run_tests(root: Path, test_file: str, name: str) -> int:
    sys.path[0] = str(root)
    return run_in_fork(root, f"tests/{test_file}", "-k", name)


def main() -> int:
    breaks = [(f"histream_core/{file}", *rest) for file, *rest in BREAKS]
    wanted = chosen(breaks, __doc__.splitlines()[0])
    os.environ["OMP_NUM_THREADS"] = "1"
    for package in ("torch", "numpy", "safetensors.torch", "av", "einops"):
        importlib.import_module(package)
    return report(wanted, run_tests)


if __name__ == "__main__":
    sys.exit(main())
