"""CLIP features of pictures and prompts, from a local folder. `transformers` is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = 0.48145466, 0.4578275, 0.40821073
STD = 0.26862954, 0.26130258, 0.27577711
"""Mean and standard deviation of the pixels that CLIP was trained on; every published CLIP uses them."""


class ClipFeatures:
    """A CLIP model in the form that transformers saves: config.json, model.safetensors, and for prompts a tokenizer."""

    def __init__(self, folder: Path) -> None:
        """Load the model; nothing is downloaded. Raises OSError or ValueError where the folder holds no model."""
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no CLIP: give a folder with config.json and model.safetensors")
        from transformers import CLIPModel

        self.folder = folder
        self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        vision: Any = self.model.config.vision_config
        self.side: int = vision.image_size

    @torch.inference_mode()
    def picture(self, frame: Tensor) -> Tensor:
        """Unit-length features [D] of the central square of a frame [H, W, 3] in [0, 1], as CLIP was trained."""
        short = min(frame.shape[:2])
        size = [self.side * length // short for length in frame.shape[:2]]
        picture = frame.permute(2, 0, 1)[None]
        picture = F.interpolate(picture, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = ((length - self.side) // 2 for length in size)
        square = picture[..., top : top + self.side, left : left + self.side]
        mean, std = (picture.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        pooled = self.model.vision_model(pixel_values=(square - mean) / std).pooler_output
        return F.normalize(self.model.visual_projection(pooled)[0], dim=0)

    @torch.inference_mode()
    def prompt(self, text: str) -> Tensor:
        """Unit-length features [D] of a prompt."""
        from transformers import CLIPTokenizer

        tokens = CLIPTokenizer.from_pretrained(self.folder, local_files_only=True)(
            text, return_tensors="pt", truncation=True
        )
        pooled = self.model.text_model(**tokens).pooler_output
        return F.normalize(self.model.text_projection(pooled)[0], dim=0)
