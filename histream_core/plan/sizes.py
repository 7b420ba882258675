"""Sizes of videos, latents and tokens, and the nearest sizes that fit onto the grids."""

import math

Grid = tuple[int, int]
"""Height and width, in latent cells (an eighth of the pixels)."""

PIXELS_PER_CELL = 8
PIXEL_FRAMES_PER_LATENT = 4
TOKENS_PER_CELL = 4
"""A token covers 2x2 latent cells."""

FPS = 16
"""Frames per second that Wan 2.1 was trained at."""

MAX_PIXEL_FRAMES = 1_000_001
"""Most frames of a video: 17 hours at 16 frames per second."""

MAX_SIDE = 16_384
"""Longest side of a video in pixels."""

GENERATED_SIDES = {1080: 1088}
"""Sides that are generated larger, to be whole latent cells at both resolutions, and cropped when written."""

FITS = {
    "crop": "scaled to cover the video, and cut off at both ends",
    "pad": "scaled to fit inside, and its edges drawn out",
    "stretch": "scaled to the video's width and height, whatever its proportions",
}
"""Ways to fit a picture to a video of another size, with a description each; the first one is the default."""


def tokens_per_frame(grid: Grid) -> int:
    """Tokens of one latent frame."""
    return grid[0] * grid[1] // TOKENS_PER_CELL


def pixel_frames(latent_frames: int) -> int:
    """Number of pixel frames that `latent_frames` latent frames decode to: the first to one, every other to four."""
    return 1 + PIXEL_FRAMES_PER_LATENT * (latent_frames - 1)


def latent_frames(pixel_frames: int) -> int:
    """Number of latent frames of a clip of 4n + 1 pixel frames; raises ValueError that names the nearest lengths."""
    if pixel_frames < 1:
        raise ValueError(f"a video of {pixel_frames} frames is empty: ask for 81, or at least 1")
    extra = (pixel_frames - 1) % PIXEL_FRAMES_PER_LATENT
    if extra:
        below = pixel_frames - extra
        raise ValueError(
            f"{pixel_frames} frames is not of the form 4n + 1: use {below} or {below + PIXEL_FRAMES_PER_LATENT}"
        )
    return 1 + pixel_frames // PIXEL_FRAMES_PER_LATENT


def whole_length(num_pixel_frames: int) -> int:
    """The next length of the form 4n + 1, which the VAE can decode to. Raises ValueError for an empty video."""
    if num_pixel_frames < 1:
        raise ValueError(f"a video of {num_pixel_frames} frames is empty: ask for 81, or at least 1")
    if num_pixel_frames > MAX_PIXEL_FRAMES:
        raise ValueError(f"a video has at most {MAX_PIXEL_FRAMES} frames: ask for {MAX_PIXEL_FRAMES} or fewer")
    return 1 + -(-(num_pixel_frames - 1) // PIXEL_FRAMES_PER_LATENT) * PIXEL_FRAMES_PER_LATENT


def frames_in(seconds: float, fps: float) -> int:
    """The number of frames of a length in seconds, rounded up. Raises ValueError for no length, and for a too long one.

    The message has the number of seconds that would work.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"{seconds:g} seconds is no length: use 5")
    if seconds * fps > MAX_PIXEL_FRAMES:
        most = math.floor(MAX_PIXEL_FRAMES / fps)
        raise ValueError(
            f"{seconds:g} seconds at {fps:g} frames per second are more than the {MAX_PIXEL_FRAMES} frames of the "
            f"longest video: ask for {most} seconds or fewer"
        )
    return max(1, math.ceil(seconds * fps))


def generated_size(width: int, height: int) -> tuple[int, int]:
    """The size to generate for a picture of this size: 1920x1088 for 1920x1080; most sizes are unchanged."""
    return GENERATED_SIDES.get(width, width), GENERATED_SIDES.get(height, height)


def shown_size(width: int, height: int) -> tuple[int, int]:
    """The size of the picture that is shown of a generated one: 1920x1080 of 1920x1088; most sizes are unchanged."""
    shown = {generated: side for side, generated in GENERATED_SIDES.items()}
    return shown.get(width, width), shown.get(height, height)


def grid_for(width: int, height: int, *, multiple: int = 32) -> Grid:
    """The latent grid of a size in pixels; raises ValueError that names the nearest sizes that would work.

    Multiples of 32 keep the half grid of Dual-Resolution Caching whole; 16 is enough without it.
    """
    for name, pixels in (("width", width), ("height", height)):
        if pixels < multiple or pixels % multiple:
            below = max(multiple, pixels // multiple * multiple)
            fixes = " or ".join(str(fix) for fix in dict.fromkeys((below, below + multiple * (pixels >= multiple))))
            raise ValueError(f"{name} {pixels} is not a multiple of {multiple}: use {fixes}")
    return height // PIXELS_PER_CELL, width // PIXELS_PER_CELL


def low_grid(grid: Grid, scale: float) -> Grid:
    """The latent grid of LOW, `scale` times that of HIGH; raises ValueError if its sides are not even numbers."""
    low = int(grid[0] * scale), int(grid[1] * scale)
    if not 0 < scale <= 1 or any(
        cells * scale != fit or fit % 2 or not fit for cells, fit in zip(grid, low, strict=True)
    ):
        raise ValueError(
            f"low_scale {scale:g} of a {grid[1]}x{grid[0]} latent is not an even number of cells: "
            "use 0.5 with a size whose sides are multiples of 32"
        )
    return low
