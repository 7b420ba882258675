"""Nodes that make a video: the sampler, its steps, its prompts, its first frame."""
