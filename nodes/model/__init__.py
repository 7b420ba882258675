"""Nodes that load a MODEL, set how it computes, or estimate its cost."""
