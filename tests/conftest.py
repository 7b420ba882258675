"""Make the core importable from a checkout."""

import sys
from pathlib import Path

# At the end: a host's own `nodes` module, where there is one, must win over our folder.
sys.path.append(str(Path(__file__).parent.parent))
