"""Frames to files and files to frames, one frame at a time in memory.

It knows no model; `network.transfer`, copies between a device and main memory, is all that it takes of that room.

`formats.find_format` looks up a format, `writers.open_writer` writes frames as one, `container.join` joins segments.
`reading.frames_of` reads frames of a video, `pictures` reads and fits a first frame, `sound` copies sound,
`edit` serves other programs: frame ranges for upscalers, cut lists for editors. `av` is imported where it is used.
"""
