"""HiStream (arXiv 2512.21338) as a headless engine: a plan goes in, finished video chunks come out."""

__version__ = "0.1.0"
