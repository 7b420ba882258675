"""Serving a live stream on time: frames in, what to compute, when to show. The clock is an argument everywhere."""
