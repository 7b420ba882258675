"""The bundled demo model: a tiny Wan transformer, a tiny Wan VAE and a small text encoder, trained on painted clips.

"a cat moves right over the meadow" at 256x256, 16 frames per second, any length. Trained for this project by
`training/` on clips that code paints; the weights are under the project's own licence, Apache-2.0. The things in
those clips are Microsoft's Fluent Emoji (MIT).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its figures are read where nothing heavy is to be loaded, such as for --help
    import torch

    from ..network.model import WanModel
    from ..vae.model import WanVAE
    from .text import DemoTextEncoder

FOLDER = Path(__file__).parent
TRANSFORMER_PATH = FOLDER / "demo-wan.safetensors"
VAE_PATH = FOLDER / "demo-vae.safetensors"
TEXT_PATH = FOLDER / "demo-text.safetensors"
WIDTH = HEIGHT = 256
FPS = 16
PRESET = "demo"
PROMPT = "a cat moves right over the meadow"


def load_transformer(path: Path | None = None, *, dtype: torch.dtype | None = None) -> WanModel:
    """Load the demo transformer, or one like it; its patch embedding stays in float32, as the forward expects.

    `dtype` None is float32, here and below. Raises ValueError for a file of another model.
    """
    import torch

    from ..files.tensors import read_safetensors
    from ..network.model import WanConfig, WanModel

    path, exact = path or TRANSFORMER_PATH, "patch_embedding."
    weights, metadata = read_safetensors(path)
    try:
        with torch.device("meta"):
            model = WanModel(WanConfig.from_state_dict(weights, metadata))
        model.load_state_dict(
            {
                key: w.to(torch.float32 if key.startswith(exact) else dtype or torch.float32)
                for key, w in weights.items()
            },
            assign=True,
        )
    except (LookupError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no transformer as we know it ({' '.join(str(error).split())[:200]})") from error
    return model.requires_grad_(False).eval()


def load_vae(*, dtype: torch.dtype | None = None) -> WanVAE:
    """Load the demo VAE; its latents have the statistics of Wan 2.1's, so they are normalised with the same numbers."""
    import torch

    from ..files.tensors import read_safetensors
    from ..vae.model import WanVAE

    weights, _ = read_safetensors(VAE_PATH)
    return WanVAE.from_state_dict({key: w.to(dtype or torch.float32) for key, w in weights.items()})


def load_text_encoder(path: Path | None = None, *, dtype: torch.dtype | None = None) -> DemoTextEncoder:
    """Load the demo text encoder, or one like it."""
    import torch

    from .text import DemoTextEncoder

    return DemoTextEncoder.load(path or TEXT_PATH, dtype=dtype or torch.float32)
