"""comfy-import-guard: every import and call of the host in `nodes/` binds to its git clone, of which nothing is run."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = "import sys; from comfy_import_guard.cli import main; sys.exit(main())"


def test_every_import_and_call_of_the_host_binds(clone, tmp_path):
    """Seen to fail with an import of a name that the host does not have."""
    cache, pack = tmp_path / "cache", tmp_path / "install" / "custom_nodes" / "histream"
    cache.mkdir()
    (cache / "ComfyUI").symlink_to(clone)
    shutil.copytree(ROOT / "nodes", pack / "nodes", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", pack)
    options = ["--offline", "--cache-dir", cache, "check", "--comfy-dir", tmp_path / "install", "--target", "HEAD"]
    found = subprocess.run([sys.executable, "-c", RUN, *map(str, options)], capture_output=True, text=True, check=False)
    assert (found.returncode, "0 will break, 1 safe, 0 warn" in found.stdout) == (0, True), found.stdout + found.stderr
