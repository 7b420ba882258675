"""The folder of a run: each finished chunk is a file that is there whole or not at all, with its checksum."""
