"""Start a ComfyUI with the pack and look at it in a headless browser: `README.md` says what that takes.

Run by hand with the Python that runs the host tests: `python tests/browser/see_workflows.py [--pictures FOLDER]`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "host"))

from comfy_server import Server  # noqa: E402

SCRIPT = Path(__file__).with_suffix(".js")
KINDS = ("classic", "vue")


def look(server: Server, kind: str, pictures: Path, parts: list[str]) -> bool:
    """Whether all that was looked at is as it should be."""
    command = ["node", str(SCRIPT), f"http://127.0.0.1:{server.port}", str(pictures), kind, *parts]
    return subprocess.run(command).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts",
        nargs="*",
        help="templates, workflows, plan, awake, demo, restyle, live, cancel, error, messages, language, languages",
    )
    parser.add_argument("--kind", choices=KINDS, action="append", help="of canvas (default: both)")
    parser.add_argument("--pictures", type=Path, help="keep the screenshots in this folder")
    args = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
    with tempfile.TemporaryDirectory() as folder, Server(comfyui, ROOT, Path(folder)) as server:
        if "HiStreamLoadModel" not in server.get("/object_info"):
            raise SystemExit(f"the pack did not load:\n{server.read_log()[-3000:]}")
        pictures = args.pictures or Path(folder)
        pictures.mkdir(parents=True, exist_ok=True)
        fine = [look(server, kind, pictures, args.parts) for kind in args.kind or KINDS]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
