"""Latents to frames and frames to latents with a Wan VAE or a TAEHV, in pieces, with equal results for any pieces.

`open_decoder` gives the decoder for a VAE and `stream_frames` the frames of latent chunks; `StreamingEncoder` encodes
frames, and `encode_picture` the picture that a video begins with.
"""

from .decode import Decoder, StreamingDecoder, begin_scene, stream_frames, to_frames
from .decoders import open_decoder
from .encode import StreamingEncoder, encode_picture
from .model import WanVAE
from .taehv import TAEHV

__all__ = [
    "TAEHV",
    "Decoder",
    "StreamingDecoder",
    "StreamingEncoder",
    "WanVAE",
    "begin_scene",
    "encode_picture",
    "open_decoder",
    "stream_frames",
    "to_frames",
]
