"""Serving a live stream on time: frames in, what to compute, when to show. No threads, and time is an argument."""
