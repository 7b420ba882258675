"""Measuring: benchmarks, judges of videos, charts. Nothing that makes a video needs it."""
