"""How good a video is, read from its pixels: the demo model's prompts, temporal consistency, drift, detail."""
