"""The ways that values are stored: memory tiers of keys and values, and the types that weights are computed in."""

TIERS = {
    "full": "everything in its place on the device",
    "lean": "past frames alone, and room for one chunk that all layers share; the same frames",
    "cpu": "past frames in main memory, and the room of two layers on the device; the same frames",
    "fp8": "lean with past frames in FP8; nearly the same frames",
}
"""The memory tiers: where and how keys and values are stored."""

EXACT = ("full", "lean", "cpu")
"""The tiers that give the same frames bit for bit."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Types that weights are computed in, by the names of options, with PyTorch's names."""
