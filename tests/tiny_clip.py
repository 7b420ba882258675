"""A tiny random CLIP with a tokenizer that knows letters, and what transformers itself makes of pictures with it."""

import json

import pytest
import torch

SIDE = 32
"""Width and height of the pictures that it reads."""


def write_clip(folder):
    """Write the CLIP into a folder; return the folder."""
    transformers = pytest.importorskip("transformers", reason="CLIP NOT TESTED: pip install 'histream[text]'")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = ["<|startoftext|>", "<|endoftext|>", *letters]
    text = small | {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 24}
    picture = small | {"image_size": SIDE, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=picture, projection_dim=8)
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def own_features(folder, frames, prompt):
    """Features of frames [N, H, W, 3] in [0, 1] and of a prompt, by nothing but the code of transformers: [N, D], [D].

    Its pictures are rounded to 8 bits before and after they are made smaller.
    """
    import transformers

    # The one by Pillow, whatever else is installed; before transformers 5 it had the plain name.
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    process = kind(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    pictures = process(images=[*(frames * 255).round().to(torch.uint8).numpy()], return_tensors="pt")
    words = transformers.CLIPTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    with torch.inference_mode():
        found = transformers.CLIPModel.from_pretrained(folder).eval()(**pictures, **words)
    return found.image_embeds, found.text_embeds[0]
