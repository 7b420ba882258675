"""Draw the picture of each node for its help page, in a ComfyUI with the pack: `README.md` says what that takes.

Run by hand with the Python that runs the host tests: `python tests/browser/draw_nodes.py [NODE ...]`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "host"))

from comfy_server import Server  # noqa: E402

FILES = (
    "models/diffusion_models/self_forcing_dmd.pt",
    "models/vae/wan_2.1_vae.safetensors",
    "models/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "input/picture.png",
    "input/video.mp4",
)
"""Files that the pictures show in widgets; empty, since nothing is run."""


def main() -> int:
    comfyui = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with Server(comfyui, ROOT, Path(folder)) as server:
            script = Path(__file__).with_suffix(".js")
            return subprocess.run(["node", str(script), f"http://127.0.0.1:{server.port}", *sys.argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())
