"""Wrong values and wrong wiring, as a browser would send them: what is changed, and what the artist is told.

WRONG is what the pack refuses, in a sentence of its own, WRONG_FOR_THE_HOST what the host does before anything runs.
"""

import copy

GOOD = {
    "demo": {"class_type": "HiStreamDemoModel", "inputs": {}},
    "words": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red circle", "clip": ["demo", 1]}},
    "empty": {
        "class_type": "EmptyHunyuanLatentVideo",
        "inputs": {"width": 64, "height": 64, "length": 1, "batch_size": 1},
    },
    "sampler": {
        "class_type": "HiStreamAnchorWindowSampler",
        "inputs": {
            "model": ["demo", 0],
            "positive": ["words", 0],
            "latent": ["empty", 0],
            "vae": ["demo", 2],
            "seed": 0,
        },
    },
    "decode": {
        "class_type": "HiStreamStreamingVAEDecode",
        "inputs": {"samples": ["sampler", 0], "vae": ["demo", 2], "filename_prefix": "video/clip", "fps": 16},
    },
}
"""One frame of the demo model, decoded into a file."""


def node(kind: str, **inputs) -> dict:
    return {"class_type": f"HiStream{kind}", "inputs": inputs}


def graph(change: dict | None = None, *, seed: int) -> dict:
    """GOOD with other inputs at its nodes and with more nodes; a node or an input that is None is left out."""
    prompt = copy.deepcopy(GOOD)
    prompt["sampler"]["inputs"]["seed"] = seed
    for name, changed in (change or {}).items():
        if changed is None:
            del prompt[name]
            continue
        if "class_type" in changed:
            prompt[name] = changed
            continue
        inputs = prompt[name]["inputs"] | changed
        prompt[name]["inputs"] = {key: value for key, value in inputs.items() if value is not None}
    return prompt


OUTPUT = {"sampler": {"output": ["output", 0]}}
"""The sampler keeps its run as the node "output" says."""

KEPT = {"output": node("VideoOutput", folder="kept/run", format="ffv1", fps=16), **OUTPUT}
"""A run that is there for the others."""

WEIGHTS = {"model": ["demo", 0], "vae": ["demo", 2]}
VIDEO = ["decode", 0]


def schedule(**inputs) -> dict:
    return {"steps": node("StepSchedule", **inputs), "sampler": {"schedule": ["steps", 0]}}


def custom(steps: str) -> dict:
    return schedule(mode="custom", steps=steps)


def settings(**inputs) -> dict:
    inputs = {"model": ["demo", 0], "preset": "auto", "low_scale": 0.5} | inputs
    return {"cache": node("DualResolutionCache", **inputs), "sampler": {"model": ["cache", 0]}}


def speed(**inputs) -> dict:
    chosen = node("Speed", **({"attention": "auto"} | inputs))
    return {"speed": chosen, "sampler": {"speed": ["speed", 0]}, "decode": {"speed": ["speed", 0]}}


def output(**inputs) -> dict:
    return {"output": node("VideoOutput", **({"folder": "a/run", "format": "ffv1", "fps": 16} | inputs)), **OUTPUT}


def extra(kind: str, **inputs) -> dict:
    return {"extra": node(kind, **inputs)}


def ranges(**inputs) -> dict:
    """Pictures of a range of the video, looked at."""
    return extra("VideoFrames", video=VIDEO, **inputs) | {
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["extra", 0]}}
    }


WRONG = [
    ("chunk of nothing", {"sampler": {"chunk_frames": 0}}, r"chunk_frames 0 .*: use 3, or at least 1"),
    ("steps in words", custom("many"), r"\"many\" is not a list of steps: .*1000L 750L 500H 250H"),
    ("steps without a scale", custom("1000 500"), r"is not a list of steps: .*1000L 750L 500H 250H"),
    ("no steps", custom("  "), r"steps is empty: write some, such as 1000L 750L"),
    ("steps that rise", custom("500H 1000H"), r"timesteps must fall .*: list them from 1000 downwards"),
    ("the last step at LOW", custom("1000L 500L"), r"last step of a chunk must be at HIGH: add .* 250H"),
    ("LOW after HIGH", custom("1000H 500L 250H"), r"LOW step cannot follow .*: list the L timesteps first"),
    ("a step above 1000", custom("2000L 500H"), r"timestep 2000 is not in \(0, 1000\]: use 1000"),
    ("low_scale", {**settings(low_scale=0.75), "empty": {"width": 96, "height": 96}}, r"low_scale 0\.75 .*: use 0\.5"),
    ("attention that is not installed", speed(attention="fa3"),
     r"attention fa3 is not installed: install .*, or choose auto"),
    ("strips", speed(vae_strips="4"), r"4 strips are too many for 64 pixels: use at most 1"),
    ("a folder outside", {"decode": {"filename_prefix": "../../x"}},
     r"the name '../../x' is outside .*: write a name like video/HiStream"),
    ("bits", output(format="h264-mp4", bit_depth="16"),
     r"h264-mp4 cannot be stored with 16 bits: use 8 or 10 as bit depth"),
    ("sections of pictures", output(format="png16", section_files=True),
     r"png16 is a folder of pictures.*: leave section files out"),
    ("a run outside", output(folder="../../x"), r"is no folder inside .*: write a name like histream/run"),
    ("a run without a VAE", {**output(), "sampler": {**OUTPUT["sampler"], "vae": None}}, r"connect the VAE"),
    ("a kept batch", {**output(), "empty": {"batch_size": 2}}, r"a batch of 2: .* set batch_size to 1"),
    ("a run that is not there", extra("ResumeRun", **WEIGHTS, run="kept/none"), r"there is no run \"kept/none\""),
    ("no run", extra("ResumeRun", **WEIGHTS, run=""), r"write a name like histream/run"),
    ("a chunk that is not there", extra("BranchRun", **WEIGHTS, run="kept/run_00001", from_chunk=9, seed=7),
     r"1 finished chunks: branch from 0 to 1"),
    ("cleaning by a name without its number", extra("CleanRun", run="kept/run", video=False), r"kept/run_00001"),
    ("a code that another node gives", {"list": node("ListRuns", folder="kept"),
     **extra("CleanRun", run="kept/run_00001", video=False, confirm=["list", 0])},
     r"confirm is written by hand and takes no connection: remove the link"),
    ("a range that is not there", ranges(range_index=9, range_frames=5, overlap=0),
     r"no range 9: .* begin again with 0"),
    ("an overlap as long as the range", ranges(range_index=0, range_frames=1, overlap=1),
     r"overlap of 1 frames .*use 0 to 0"),
    ("a video too short to drift", extra("DriftMeter", video=VIDEO, filename_prefix="drift/x"),
     r"less than two seconds .* give a longer one"),
    ("a plan of what cannot be", extra("MemoryPlan", model=["demo", 0], latent=["empty", 0], chunk_frames=0),
     r"chunk_frames 0 .*: use 3, or at least 1"),
    ("sound that is not there", {"sampler": OUTPUT["sampler"], "output": node("VideoOutput", folder="a/run",
     format="ffv1", fps=16, sound=VIDEO), "decode": {"samples": ["first", 0]}, "first": node("AnchorWindowSampler",
     model=["demo", 0], positive=["words", 0], latent=["empty", 0], seed=1)}, r"holds no sound: choose another file"),
]  # fmt: skip

WRONG_FOR_THE_HOST = [
    ("anchor_match", {"sampler": {"anchor_match": 2}}, r"anchor_match.*max"),
    ("a tier that does not exist", settings(kv_memory="huge"), r"kv_memory"),
    ("a seed below nothing", {"sampler": {"seed": -5}}, r"seed.*min"),
    ("a VAE as MODEL", {"sampler": {"model": ["demo", 2]}}, r"model.*VAE|VAE.*MODEL"),
    ("no latent", {"sampler": {"latent": None}}, r"latent"),
]  # fmt: skip

SAVED = {"class_type": "SaveVideo", "inputs": {
    "filename_prefix": "video/x", "format": "auto", "codec": "auto", "video": ["sampler", 1]}}  # fmt: skip
PICTURES = {"show": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 1]}}}
OTHERS = {"class_type": "KSampler", "inputs": {
    "model": ["demo", 0], "positive": ["words", 0], "negative": ["words", 0], "latent_image": ["empty", 0],
    "seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}}  # fmt: skip
PIXELS = {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}}
BLANK = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
LONG = {"empty": {"length": 33}}


def first_frame(**inputs) -> dict:
    first = node("FirstFrame", vae=["demo", 2], image=["blank", 0], **inputs)
    return {"blank": BLANK, "first": first, "sampler": {"first_frame": ["first", 0]}}


def upscaled(name: str, **inputs) -> dict:
    """The video goes out in ranges, and comes back under a name."""
    wanted = {"range_index": 0, "range_frames": 5, "overlap": 0} | inputs
    back = node("RangesToVideo", images=["extra", 0], range=["extra", 1], name=name, format="h264-mp4")
    return {**extra("VideoFrames", video=VIDEO, **wanted), "back": back}


ALONE = {"sampler": None, "decode": None}
"""Nodes that make something of a run that is there, or by a sampler of the host."""


def decoded(**inputs) -> dict:
    """A node that decodes the result of the node "extra"."""
    wanted = {"samples": ["extra", 0], "vae": ["demo", 2], "filename_prefix": "video/more", "fps": 16} | inputs
    return {"more": node("StreamingVAEDecode", **wanted)}


def saved(kind: str, **inputs) -> dict:
    """A node of the host that saves, outside of its output folder."""
    return {"save": {"class_type": kind, "inputs": inputs | {"filename_prefix": "../x"}}}


def of_run(kind: str, run="kept/run_00001", **inputs) -> dict:
    """A node that goes on with a run, alone."""
    return ALONE | extra(kind, **WEIGHTS, run=run, **inputs)


HOST_SAMPLER = {
    **ALONE,
    "steps": node("StepSchedule", mode="histream", model=["demo", 0]),
    "twin": node("AnchorWindowSamplerSelect", model=["demo", 0], schedule=["steps", 0]),
    "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": 0}},
    "guider": {"class_type": "BasicGuider", "inputs": {"model": ["demo", 0], "conditioning": ["words", 0]}},
    "extra": {"class_type": "SamplerCustomAdvanced", "inputs": {
        "noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["twin", 0], "sigmas": ["steps", 1],
        "latent_image": ["empty", 0]}},
}  # fmt: skip
"""The SAMPLER twin, in a sampler of the host."""

LIVE = ALONE | extra("Live", **WEIGHTS, positive=["words", 0], source="page", seed=0, strength=0.8, fps=0, width=0,
                     height=0, seconds=1, record=True)  # fmt: skip
TO_PICTURES = {"other": node("VideoOutput", folder="a/run", format="png16", fps=16)}
MORE_IMAGES = {"show": {"class_type": "PreviewImage", "inputs": {"images": ["more", 1]}}}
MORE_SAVED = {"save": {"class_type": "SaveVideo", "inputs": SAVED["inputs"] | {"video": ["extra", 1]}}}
MORE_PIXELS = {"pixels": PIXELS, **decoded(vae=["pixels", 0])}
OUTSIDE = decoded(filename_prefix="../x")

AHEAD = [
    ("a prefix outside", {"decode": {"filename_prefix": "../x"}}, r"^Streaming VAE Decode: the name '../x' is outside"),
    ("a prefix at the root", {"decode": {"filename_prefix": "/tmp/x"}}, r"Decode: the name '/tmp/x' is outside"),
    ("images that are off", PICTURES, r"^Preview Image takes the images of .*: turn images on"),
    ("images above the limit", {**PICTURES, "decode": {"images": True, "image_limit_gib": 0.1},
     "empty": {"length": 2401}},
     r"Decode: the pictures would take 0\.1 GiB .* limit is 0\.1 GiB"),
    ("a VAE of pixels", {"pixels": PIXELS, "decode": {"vae": ["pixels", 0]}}, r"Decode: pixel_space is not a Wan 2"),
    ("a VAE of pixels at the sampler", {"pixels": PIXELS, "sampler": {"vae": ["pixels", 0]}}, r"not a Wan 2\.1 VAE"),
    ("a VIDEO of no run", {"save": SAVED}, r"^Save Video takes the VIDEO .* connect one to its output"),
    ("a run of no run", extra("ResumeRun", **WEIGHTS, run=["sampler", 2]), r"takes the run of the Anchor-Window"),
    ("a VIDEO of pictures", {"save": SAVED, **output(format="png16")}, r"png16 is a folder of pictures: choose"),
    ("a first frame that is held too long", first_frame(hold=32), r"held for 32 latent frames .* set hold to 1 or 3"),
    ("a first frame held for two", first_frame(hold=2), r"held for 2 latent frames .* set hold to 1 or 3"),
    ("a range past the end", ranges(range_index=2, range_frames=5, overlap=0), r"of a Video: there is no range 2"),
    ("an overlap", ranges(range_index=0, range_frames=1, overlap=4), r"Frames of a Video: an overlap of 4 frames"),
    ("a drift of one frame", extra("DriftMeter", video=VIDEO, filename_prefix="x"), r"Drift Meter: a video of less"),
    ("a drift of a run", {**extra("DriftMeter", video=["sampler", 1], filename_prefix="x"), **output()},
     r"Drift Meter: a video of less than two seconds"),
    ("a plot outside", {**extra("DriftMeter", video=VIDEO, filename_prefix="../x"), **LONG}, r"Drift Meter: the name"),
    ("a name that changes", upscaled("video/%date%"), r"Ranges to Video: the name .* leave % out"),
    ("a name of nothing", upscaled("video/"), r"Ranges to Video: \"video/\" has no name for the video in it"),
    ("ranges outside", upscaled("../x"), r"Ranges to Video: the name '../x' is outside"),
    ("a range of a drift outside", upscaled("/tmp/x", range_frames=1), r"Ranges to Video: the name '/tmp/x' is"),
    ("another sampler on the demo", {"sampler": OTHERS}, r"Demo Model makes videos chunk by chunk"),
    ("an empty latent", {"sampler": {"class_type": "EmptyHunyuanLatentVideo", "inputs": {
        "width": 64, "height": 64, "length": 1, "batch_size": 1}}}, r"the LATENT is empty, as before a sampler"),
    ("behind Resume, a prefix outside", {**of_run("ResumeRun"), **OUTSIDE}, r"Decode: the name '../x' is outside"),
    ("behind Resume, images that are off", {**of_run("ResumeRun"), **decoded(), **MORE_IMAGES}, r"turn images on"),
    ("behind Extend, a prefix outside", {**of_run("ExtendRun", seconds=1), **OUTSIDE}, r"Decode: the name '../x' is"),
    ("behind Extend, images above the limit", {**of_run("ExtendRun", seconds=600), **MORE_IMAGES,
     **decoded(images=True, image_limit_gib=0.1)}, r"Decode: the pictures would take 0\.4 GiB"),
    ("behind Extend, a VAE of pixels", {**of_run("ExtendRun", seconds=1), **MORE_PIXELS}, r"not a Wan 2\.1 VAE"),
    ("behind Branch, a prefix outside", {**of_run("BranchRun", from_chunk=0, seed=7), **OUTSIDE}, r"'../x' is outside"),
    ("behind Branch, a drift of one frame", {**of_run("BranchRun", from_chunk=0, seed=7),
     "drift": node("DriftMeter", video=["extra", 1], filename_prefix="x")}, r"Drift Meter: a video of less"),
    ("behind Branch, a VIDEO of pictures", {**of_run("BranchRun", from_chunk=0, seed=7, output=["other", 0]),
     **TO_PICTURES, **MORE_SAVED}, r"^Save Video takes a VIDEO, and png16 is a folder"),
    ("two nodes behind, a prefix outside", {**KEPT, **extra("ExtendRun", **WEIGHTS, run=["sampler", 2], seconds=1),
     **OUTSIDE}, r"Decode: the name '../x' is outside"),
    ("two nodes behind, a VIDEO of pictures", {**KEPT, **extra("ExtendRun", **WEIGHTS, run=["sampler", 2], seconds=1,
     output=["other", 0]), **TO_PICTURES, **MORE_SAVED}, r"^Save Video takes a VIDEO, and png16"),
    ("a chunk that will not be there", {**KEPT, **extra("BranchRun", **WEIGHTS, run=["sampler", 2], from_chunk=9,
     seed=7)}, r"Branch or Retry Run: the run will have 1 chunks: branch from 0 to 1"),
    ("behind the host's sampler, a prefix outside", {**HOST_SAMPLER, **OUTSIDE}, r"Decode: the name '../x' is outside"),
    ("behind the host's sampler, images off", {**HOST_SAMPLER, **decoded(), **MORE_IMAGES}, r"turn images on"),
    ("behind the host's sampler, images above the limit", {**HOST_SAMPLER, **MORE_IMAGES, "empty": {"length": 2401},
     **decoded(samples=["extra", 1], images=True, image_limit_gib=0.1)}, r"Decode: the pictures would take 0\.1 GiB"),
    ("behind the host's sampler, a VAE of pixels", {**HOST_SAMPLER, **MORE_PIXELS}, r"not a Wan 2\.1 VAE"),
    ("behind Live, a plot outside", {**LIVE, "drift": node("DriftMeter", video=["extra", 0], filename_prefix="../x")},
     r"Drift Meter: the name '../x' is outside"),
    ("a file of the host outside", {**output(),
     **saved("SaveVideo", video=["sampler", 1], format="auto", codec="auto")}, r"^Save Video: the name '../x' is out"),
    ("pictures of the host outside", {**saved("SaveImage", images=["decode", 1]), "decode": {"images": True}},
     r"^Save Image: the name '../x' is outside"),
    ("a VIDEO of pictures behind a decode", {**TO_PICTURES, "decode": {"output": ["other", 0]},
     "save": {"class_type": "SaveVideo", "inputs": SAVED["inputs"] | {"video": ["decode", 0]}}},
     r"^Save Video takes a VIDEO, and png16 is a folder"),
]  # fmt: skip
"""Mistakes that a node behind the sampler, or another one, would tell only when all is sampled."""
