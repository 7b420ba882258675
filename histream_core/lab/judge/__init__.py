"""Measures of a video, read from its pixels: agreement with a demo prompt, temporal consistency, drift, detail."""
