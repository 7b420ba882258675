"""Measures of a video, read from its pixels: agreement with a demo prompt, temporal consistency, drift, detail."""

LUCAS_KANADE, DIS = "lucas-kanade", "dis"

FLOWS = {
    LUCAS_KANADE: "pyramidal Lucas-Kanade in colour, ours",
    DIS: "OpenCV's, of grey pictures (opencv-python-headless), in a fraction of the time",
}
"""The ways to read motion between two pictures."""
