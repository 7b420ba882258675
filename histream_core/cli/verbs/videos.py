"""`histream demo` and `histream render`: make a video file from a prompt."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from torch import Tensor

from ... import demo
from ...demo.sentence import completed
from ...files.disk import check_empty, check_length, check_new, under_new_name
from ...plan import Plan, PlanOptions, Preset, make_plan
from ...plan.draft import check_low, draft_of
from ...plan.make import DEFAULT_OPTIONS, describe_crop, size_to_generate, window_of
from ...plan.sizes import FPS, frames_in, latent_frames, whole_length
from ...runs import Settings, clean, hash_bytes
from ...runs.describe import NewRun, check_memory, video_tags
from ...runs.last_frames import LastFrames
from ...runs.make import Watch, unwatched
from ...runs.progress import Progress
from ...runs.render import Order, Target, render
from ...runs.restyle import EncodedSource, SourceVideo
from ...runs.store.new import check_free
from ...runs.store.video import check_room, format_of
from ...runs.verbs import begin
from ...runs.weights import Weights
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...stream.timeline import Cue, Placed, place
from ...video.container import check_name
from ...video.formats import Format, find_format
from ...video.pictures import CROP
from ...video.sound import check_sound
from ...video.space import check_space
from ...video.writers import frame_rate, picture_name
from ..options.adding import DEMO
from ..options.keeping import (
    read_sound,
    saved_options,
    snapshots_of,
    with_output,
)
from ..options.plans import anchor_source, guidance_of, placed_texts, time_of, with_negative
from ..options.speed import speed_of
from ..options.timelines import (
    cues_of,
    given_frames,
    notes_of,
    read_first_frame,
    video_to_extend,
)
from ..options.weights import (
    Source,
    demo_source,
    engine_notes,
    engine_of,
    find_source,
    pick_device,
)
from ..parsers.videos import SIZE
from ..progress import print_notes, progress_bar
from ..results import describe_entries, describe_progress, describe_video, sentence
from ..review import check_review
from .runs import Finishing, finish_run


def plan_options(args: argparse.Namespace) -> PlanOptions:
    """The options of a plan that `add_run_options` has added."""
    return PlanOptions(
        temporal=time_of(args),
        levers=speed_of(args).levers,
        anchor_match=args.anchor_match,
        histories=args.histories,
        order=args.order,
        anchor_source=anchor_source(args),
        guidance=guidance_of(args),
    )


def run_demo(args: argparse.Namespace) -> tuple[dict, str]:
    """Make the demo video."""
    return make_checked(args, check_demo(args))


def run_render(args: argparse.Namespace) -> tuple[dict, str]:
    """Make a video from the user's weights."""
    return make_checked(args, check_render(args))


def check_demo(args: argparse.Namespace) -> Checked:
    """Check the options of a demo video. Raises ValueError and OSError."""
    cues, video = _cues(args, demo.PROMPT), video_to_extend(args)
    fps = video.fps if video else demo.FPS
    num_frames = whole_length(frames_in(args.seconds, fps))
    words = with_negative(args, [cue.prompt for cue in staged(args, cues)])
    wanted = Wanted((demo.WIDTH, demo.HEIGHT), num_frames, fps, video)
    return _check(args, demo_source(words, pick_device(args.device)), cues, wanted)


def check_render(args: argparse.Namespace) -> Checked:
    """Check the options of a video from the user's weights. Raises ValueError and OSError."""
    cues, video = _cues(args), video_to_extend(args)
    encodes = bool(video or args.first_frame)
    words = words_to_encode(args, staged(args, cues) if args.model == DEMO else cues)
    source = find_source(args, words, encodes=encodes)
    size, fps = (video.size, video.fps) if video else (SIZE, FPS)
    wanted = Wanted(args.size or size, args.frames, fps if args.fps is None else args.fps, video)
    return _check(args, source, cues, wanted)


def _cues(args: argparse.Namespace, default: str | None = None) -> tuple[Cue, ...]:
    return cues_of(args, args.prompt or default)


def words_to_encode(args: argparse.Namespace, cues: Sequence[Cue]) -> list[str]:
    """The prompts of the cues, and the negative one; none where the user names no prompt."""
    prompts = [cue.prompt for cue in cues if cue.prompt]
    if not prompts and args.model == DEMO:
        prompts = [demo.PROMPT]
    return with_negative(args, prompts)


def staged(args: argparse.Namespace, cues: Sequence[Cue]) -> list[Cue]:
    """Cues of the demo model with a size and a place, drawn by the seed where neither prompt nor picture shows them."""
    if args.first_frame or args.extend_video:
        return [*cues]
    return [replace(cue, prompt=completed(cue.prompt, args.seed)) for cue in cues]


@dataclass(frozen=True)
class Wanted:
    """The size, length and rate of a video, and the video that it goes on from."""

    size: tuple[int, int]
    num_frames: int
    fps: float
    extended: SourceVideo | None = None


def _check(args: argparse.Namespace, source: Source, cues: tuple[Cue, ...], wanted: Wanted) -> Checked:
    """Check the options of a video with those weights."""
    frame_rate(wanted.fps)
    plan, last, notes = _plan(args, source.preset, wanted)
    if args.draft:
        plan, wanted = _as_draft(args, plan, wanted)
    if args.review:
        check_review(plan)
    if args.upsampler:
        check_low(plan)
    placed = place(cues, plan, wanted.fps)
    picture, fitted = read_first_frame(args, plan.size, wanted.size)
    unheard = []
    if last and args.whole and not args.sound:
        args.sound, unheard = last.video.sound(find_format(args.format, args.depth))
    notes = [*source.notes_on(placed.plan), *notes, *notes_of(args, placed), *fitted, *unheard]
    shown = Shown(placed, picture, notes, last=last, whole=args.whole)
    return Checked(source, shown, wanted.size, wanted.fps)


def _plan(args: argparse.Namespace, preset: Preset, wanted: Wanted) -> tuple[Plan, LastFrames | None, list[str]]:
    """The plan of a video, the frames that it goes on from, and notes on both. Raises ValueError."""
    given, size, last = given_frames(args, preset.chunk_frames), wanted.size, None
    options = replace(plan_options(args), given_frames=given, first_frame=given > 0)
    if wanted.extended:
        window, video = window_of(preset, args.mode), wanted.extended
        size = video.generated_size if size == video.size else size_to_generate(preset, args.mode, size, options)
        last = LastFrames.of(video, window, size, args.fit or CROP)
        last.check_shorter(wanted.num_frames)
        options, size = replace(options, given_frames=last.latents, first_frame=last.latents == 1), last.size
    plan, notes = plan_video(preset, args.mode, size=size, num_frames=wanted.num_frames, options=options)
    return plan, last, [*notes, *(last.notes(whole=args.whole) if last else ())]


def _as_draft(args: argparse.Namespace, plan: Plan, wanted: Wanted) -> tuple[Plan, Wanted]:
    """The draft of a video. Raises ValueError for what a draft does not have."""
    other = next((name for name in ("run_dir", "extend_video", "review", "upsampler") if getattr(args, name)), None)
    if other:
        raise ValueError(f"a draft is a small video to judge a seed by: leave --{other.replace('_', '-')} out")
    return draft_of(plan), replace(wanted, size=half_size(wanted.size))


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size of the draft of a video: half of each side, made even."""
    width, height = (side // 4 * 2 for side in size)
    return width, height


def make_checked(args: argparse.Namespace, checked: Checked) -> tuple[dict, str]:
    """Load the weights of a video, then sample, decode and write it, with a run folder or without; its result."""
    out = "OUT" if checked.shown.video else "--out"
    if args.run_dir:
        if args.out:
            raise ValueError(f"--run-dir keeps the video in its folder: leave {out} out, or leave --run-dir out")
        if args.overwrite:
            raise ValueError(f"--overwrite is for {out}: leave it out, a run's folder is never replaced")
        return keep(args, checked)
    if args.review:
        raise ValueError("--review is for a run that is kept, which knows the seed of each chunk: give --run-dir too")
    return _render(args, checked)


@dataclass(frozen=True)
class Shown:
    """Content of a video: placed prompts, and the first frame [H, W, 3], or the video that is restyled or extended."""

    placed: Placed
    picture: Tensor | None
    notes: list[str]
    video: SourceVideo | None = None
    last: LastFrames | None = None
    """The frames of the video that is extended."""
    whole: bool = False
    """Whether that video is written first."""

    @property
    def plan(self) -> Plan:
        return self.placed.plan

    def prompts(self, texts: Sequence[Tensor]) -> tuple[Prompt, ...]:
        """The prompts of the video, from the embeddings of `words_to_encode`."""
        return placed_texts(self.plan, texts, self.placed.prompts)

    def given(self, weights: Weights) -> Tensor | None:
        """The latents that the video begins with; None if there are none."""
        if self.last:
            return weights.encode_frames(self.last.frames())
        if self.picture is None:
            return None
        return weights.encode_first_frame(self.picture, hold=self.plan.first_chunk_frames)

    def source(self, weights: Weights) -> EncodedSource | None:
        """The source of the video that is restyled; None if there is none."""
        return self.video and weights.open_source(self.video.frames(), self.plan)


@dataclass(frozen=True)
class Checked:
    """A video whose options were checked: its weights, which are not loaded yet, its content, size and rate."""

    source: Source
    shown: Shown
    size: tuple[int, int]
    fps: float


def _render(args: argparse.Namespace, checked: Checked) -> tuple[dict, str]:
    """Make a video without a run folder."""
    source, shown, size, fps = checked.source, checked.shown, checked.size, checked.fps
    noise = SeededNoise(args.seed)  # refuses a seed that is none
    if args.section_files:
        raise ValueError("sections are those of a run that is kept: give --run-dir too, or leave --section-files out")
    if args.overwrite and not args.out:
        out = "OUT" if shown.video else "--out"
        raise ValueError(f"--overwrite lets {out} replace a file: give {out} too, or leave it out for a new name")
    plan, format = shown.plan, find_format(args.format, args.depth)
    extended = shown.last if shown.whole else None
    num_frames = plan.num_pixel_frames + (extended.num_before if extended else 0)
    check_output(args.out, format, size=size, fps=fps, num_frames=num_frames, overwrite=args.overwrite)
    names = new_names(f"histream-{args.verb}", "" if format.is_sequence else format.suffix)
    if args.sound:
        check_sound(args.sound, format)
    weights, texts = _load(args, source, plan)
    prompts = shown.prompts(texts)
    check_memory(weights, plan, num_prompts=len(prompts), ignore=args.ignore_memory)
    notes = [*shown.notes, *engine_notes(weights, plan)]
    print_notes(notes)
    tags = video_tags([cue.prompt for cue in shown.placed.cues], [args.seed])
    order = Order(plan, prompts, noise, shown.given(weights), shown.source(weights))

    def write(path: Path) -> tuple[Path, Progress]:
        target = Target(
            path,
            format,
            size,
            fps=fps,
            metadata=tags,
            sound=args.sound,
            overwrite=args.overwrite,
            extended=extended,
        )
        with progress_bar() as report:
            return path, render(weights, order, target, report)

    path, progress = write(args.out) if args.out else under_new_name(names, write)
    result = {
        "file": str(path.resolve()),
        "prompt": shown.placed.words or None,
        "preset": source.preset.name,
        "mode": args.mode,
        "kv": args.kv,
        "kernels": dict(weights.kernels().in_use),
        "seed": args.seed,
        **describe_video(plan, format, size, fps),
        **({"frames": num_frames, "seconds": num_frames / fps} if extended else {}),
        **describe_progress(progress),
        **describe_entries(order.source),
        "notes": notes,
    }
    return result, sentence(result)


def check_kept(args: argparse.Namespace, checked: Checked) -> tuple[Settings, bytes | None]:
    """Check that a run can be begun in --run-dir, and return its settings and its sound. Raises ValueError, OSError."""
    SeededNoise(args.seed)  # refuses a seed that is none
    check_free(args.run_dir)
    settings, sound = _settings(args, checked.source, size=checked.size, fps=checked.fps)
    low = keeps_low(args)
    check_room(args.run_dir, checked.shown.plan, settings, sound=sound, low=low)  # before the weights, which take long
    snapshots_of(args)
    return settings, sound


def keeps_low(args: argparse.Namespace) -> bool:
    """Whether a run that is begun stores the LOW estimates of its chunks, for an upsampler to remember."""
    return bool(getattr(args, "upsampler", None))


def keep(
    args: argparse.Namespace, checked: Checked, watch: Watch = unwatched, part: range | None = None
) -> tuple[dict, str]:
    """Begin a run in --run-dir and finish it; of a `part` only its chunks, and no video."""
    folder, shown = args.run_dir, checked.shown
    settings, sound = check_kept(args, checked)
    weights, texts = _load(args, checked.source, shown.plan)
    run = NewRun(
        plan=shown.plan,
        prompts=shown.prompts(texts),
        seed=args.seed,
        settings=settings,
        given=shown.given(weights),
        sound=sound,
        source=saved_options(args) | ({"negative": args.negative or ""} if shown.plan.guidance.is_on else {}),
        video=shown.video,
        part=part,
    )
    with begin(weights, folder, run, ignore_memory=args.ignore_memory) as journal:
        try:
            begun = shown.source(weights)
            made = Finishing(snapshots_of(args), shown.notes, begun, watch, shown.video, args.review)
            return finish_run(weights, journal, made)
        except KeyboardInterrupt as stop:
            if not args.discard:
                raise
            discarded = stop
    clean(folder, video=True)
    raise KeyboardInterrupt(f"the run in {folder} is removed") from discarded


def _settings(
    args: argparse.Namespace, source: Source, *, size: tuple[int, int], fps: float
) -> tuple[Settings, bytes | None]:
    """The settings of a kept run, and its sound."""
    settings = Settings(
        preset=source.preset.name,
        mode=args.mode,
        size=size,
        fps=float(fps),
        format=args.format,
        output="video",
        dtype="",
        depth=args.depth,
        section_files=bool(args.section_files),
    )
    settings = with_output(settings)
    sound = read_sound(args.sound, format_of(settings)) if args.sound else None
    return replace(settings, sound=hash_bytes(sound) if sound else None), sound


def _load(args: argparse.Namespace, source: Source, plan: Plan) -> tuple[Weights, list[Tensor]]:
    """Load the weights with the requested speed and devices, and encode the prompts."""
    weights, texts = source.load()
    weights = replace(weights, kv=args.kv, speed=speed_of(args))
    return weights.on(engine_of(args), plan), texts


def check_output(
    path: Path | None,
    format: Format,
    *,
    size: tuple[int, int],
    fps: float,
    num_frames: int,
    overwrite: bool,
) -> None:
    """Raise ValueError or OSError for a video that cannot be written, before anything is computed.

    `path` None: a new name in the current folder.
    """
    if path and format.is_sequence:
        check_length(picture_name(path, format, 0))
        check_empty(path)
    elif path:
        check_name(path, format)
        check_new(path, overwrite=overwrite)
    format.check_size(size)
    frame_rate(fps, format)
    check_space(path.parent if path else Path(), format, size, num_frames)


def plan_video(
    preset: Preset,
    mode: str,
    *,
    size: tuple[int, int],
    num_frames: int,
    options: PlanOptions = DEFAULT_OPTIONS,
) -> tuple[Plan, list[str]]:
    """The plan of a video of `size` and `num_frames` pixel frames, and notes on what had to be changed.

    Raises ValueError if that is impossible.
    """
    length = whole_length(num_frames)
    generated = size_to_generate(preset, mode, size, options)
    plan = make_plan(preset, mode, size=generated, num_latent_frames=latent_frames(length), options=options)
    notes = []
    if length != num_frames:
        notes.append(f"{num_frames} frames is not of the form 4n + 1: {length} are made")
    return plan, [*notes, *describe_crop(plan.size, size)]


def new_names(stem: str, suffix: str) -> Iterator[Path]:
    """Yield stem.mp4, stem-2.mp4, ... in the current folder."""
    return (Path(f"{stem}{'' if n == 1 else f'-{n}'}{suffix}") for n in count(1))
