"""Writes the three demo files from checkpoints: python -m training.export --vae F --bank F --network F [--out FOLDER]

The files hold the averaged weights of the transformer in half precision. The statistics of the demo VAE's latents are
folded into its 1x1x1 convolutions, so that Wan 2.1's fixed mean and standard deviation normalise them. Every file is
replaced atomically.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from histream_core.demo import FOLDER, TEXT_PATH, TRANSFORMER_PATH, VAE_PATH
from histream_core.vae.model import LATENT_MEAN, LATENT_STD, WanVAE
from training.network import begin
from training.scene_bank import read_statistics
from training.train_vae import load_vae

LICENCE = {"license": "Apache-2.0", "made_by": "training/ of HiStream for ComfyUI, on clips drawn by code"}


def fold_statistics(vae: WanVAE, mean: Tensor, std: Tensor) -> None:
    """Change `vae` so that its latents, of `mean` and `std` per channel, have the statistics of Wan 2.1's."""
    target_mean, target_std = torch.tensor(LATENT_MEAN), torch.tensor(LATENT_STD)
    gain = target_std / std
    moments, into = vae.conv1, vae.conv2
    moments.weight.data[: vae.z_dim] *= gain[:, None, None, None, None]
    moments.bias.data[: vae.z_dim] = (moments.bias.data[: vae.z_dim] - mean) * gain + target_mean
    into.bias.data += into.weight.data[:, :, 0, 0, 0] @ (mean - target_mean / gain)
    into.weight.data /= gain[None, :, None, None, None]


def write(path: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    beside = path.with_suffix(".part")
    save_file({k: w.detach().to(torch.float16).contiguous() for k, w in weights.items()}, beside, LICENCE | metadata)
    beside.replace(path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae", type=Path, required=True, help="checkpoint of training.train_vae, or .safetensors")
    parser.add_argument("--bank", type=Path, required=True, help="for the statistics of the latents")
    parser.add_argument("--network", type=Path, required=True, help="checkpoint of any stage after them")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args(argv)
    vae, bank, network = load_vae(args.vae), read_statistics(args.bank), begin(args.network)
    fold_statistics(vae, *bank)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / VAE_PATH.name, vae.state_dict(), {})
    told = {"text_dim": network.config.text_dim, "num_heads": network.config.num_heads}
    write(args.out / TRANSFORMER_PATH.name, network.model.state_dict(), {"config": json.dumps({"transformer": told})})
    write(args.out / TEXT_PATH.name, network.encoder.state_dict(), {})


if __name__ == "__main__":
    main()
