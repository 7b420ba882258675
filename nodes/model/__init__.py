"""Nodes that load a MODEL, or say how it is computed and what it takes."""
