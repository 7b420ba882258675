"""The adapter between the host and the engine: everything that imports the host for the nodes."""
