"""The folder of a run: each finished chunk is a file with a checksum, written whole or not at all."""
