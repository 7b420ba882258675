"""Plan and network in, latent chunks out: the chunk loop, its noise and its prompts.

`Stream` is the state of one run; `SeededNoise` and `Prompt` are its inputs; `place` puts a timeline into a plan.
"""

from .noise import Noise, SeededNoise
from .prompts import Prompt
from .stream import Stream
from .timeline import Cue, Placed, parse_timeline, place

__all__ = ["Cue", "Noise", "Placed", "Prompt", "SeededNoise", "Stream", "parse_timeline", "place"]
