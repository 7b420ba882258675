"""Make the core and the tests' own modules importable from a checkout."""

import sys
from pathlib import Path

TESTS = Path(__file__).parent

# At the end: a host's own `nodes` module, where there is one, must win over our folder.
sys.path += [str(TESTS), str(TESTS.parent)]
