"""Nodes for video files: written while they are made, decoded, out in ranges and back, measured."""
