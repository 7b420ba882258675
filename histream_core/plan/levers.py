"""Names of the approximations (levers) that save work; a plan turns them into network calls.

All are off by default; each changes the frames. docs/performance.md has the savings and the effect on the pictures of
the bundled model.
"""

from collections.abc import Collection

LAST_STEP, CLEAN_ANCHOR, SURVIVORS, POOLED_LOW = "last-step", "clean-anchor", "survivors", "pooled-low"
SPARSE = "sparse"

LEVERS = {
    CLEAN_ANCHOR: "a clean pass at HIGH over the chunks that hold the anchor alone; the others as last-step",
    LAST_STEP: "no clean pass at HIGH: the keys of a chunk's last step are kept",
    SURVIVORS: "clean passes over those frames alone that later chunks see",
    POOLED_LOW: "no clean pass at LOW: its keys are those of HIGH, averaged over the tokens that a LOW token covers",
    SPARSE: "each part of a frame attends at HIGH to half of the window, where it answers best on average",
}
"""The levers by name, and the effect of each."""


def check_second(levers: Collection[str], histories: str) -> None:
    """Raise ValueError where keys would stay that the second set of weights of a model was to compute."""
    needless = next((name for name in (LAST_STEP, CLEAN_ANCHOR) if name in levers), None)
    if needless:
        raise ValueError(
            f"{needless} keeps keys of denoising steps, and these weights have a second set for what later chunks see: "
            "leave it out"
        )
    if histories != "clean":
        raise ValueError(
            f"histories {histories} keep keys of denoising steps, and these weights have a second set for what later "
            "chunks see: take clean histories"
        )


def check_levers(levers: Collection[str]) -> tuple[str, ...]:
    """`levers` in the order of LEVERS; raises ValueError for an unknown one, or two that exclude each other."""
    for name in levers:
        if name not in LEVERS:
            raise ValueError(f'lever "{name}" does not exist: use some of {", ".join(LEVERS)}')
    if LAST_STEP in levers and CLEAN_ANCHOR in levers:
        raise ValueError(f"{LAST_STEP} and {CLEAN_ANCHOR} exclude each other: use one of them")
    return tuple(name for name in LEVERS if name in levers)
