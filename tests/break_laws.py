"""Break the engine on purpose, one line at a time, and see the tests notice.

Run by hand: `python tests/break_laws.py` (about two minutes; `--only WORD` for some). Each entry replaces one piece of
text in a copy of the pack and names the test that must then fail. A law whose test still passes is no law.
"""

import os
import subprocess
import sys
from pathlib import Path

from breaking import chosen, report

# file, what stands there, what it is broken to, test file, part of the test's name
BREAKS = [
    ("stream.py", "            if finished:\n", "            if finished and finished[0].index != 1:\n",
     "test_stream.py", "both_caches"),
    ("plan.py", "cache_steps if stop < num_frames else ()", "cache_steps", "test_plan.py", "census"),
    ("stream.py", "        finished: tuple[Chunk, Tensor] | None = None\n        for chunk in self.plan.chunks:",
     "        finished = None\n        for chunk in (*self.plan.chunks, self.plan.chunks[-1]):",
     "test_stream.py", "called_as_often"),
    ("plan.py", "self.local_frames + self.chunk_frames", "self.local_frames + self.chunk_frames - 1",
     "test_cache.py", "exactly_the_frames"),
    ("cache.py", "return frame if frame < anchors else anchors +", "return", "test_cache.py", "exactly_the_frames"),
    ("cache.py", "if self._times[page] != time + page:", "if False:", "test_cache.py", "moved_anchor"),
    ("rope.py", "max(0, start - self.span)", "max(0, start + 3 - self.span)", "test_stream.py", "clamped_is_absolute"),
    ("rope.py", "positions.to(torch.float64), frequencies", "positions.float(), frequencies.float()",
     "test_rope.py", "however_far"),
    ("rope.py", "positions.to(torch.float64), frequencies", "positions.bfloat16().double(), frequencies",
     "test_stream.py", "ten_thousand"),
    ("stream.py", "self.denoise(self._resize(clean, self.plan.grids[step.scale])",
     "self.denoise(self._resize(clean, self.plan.grids[step.scale]) * (0.99 if step.scale is Scale.LOW else 1)",
     "test_stream.py", "low_at_full_size"),
    ("noise.py", "spawn_key=(item, chunk, step)", "spawn_key=(item, step)", "test_noise.py", "noise_of_its_own"),
    ("noise.py", "np.random.SeedSequence(self.seed, spawn_key=(item, chunk, step)).generate_state(1, np.uint64)",
     "[self.__dict__.setdefault('n', []).append(0) or len(self.n)]", "test_stream.py", "cut_anywhere"),
    ("stream.py", "prompt.first_chunk <= chunk.index][-1]", "prompt.first_chunk <= chunk.index][0]",
     "test_stream.py", "prompt_change"),
    ("stream.py", "self._begin(chunk.context, (), start=chunk.frames.start)",
     "self._begin(chunk.context[1:], chunk.context[:1], start=chunk.frames.start)", "test_stream.py", "fresh_prefill"),
    ("stream.py", "raise ValueError(f\"the plan expects given", "print(f\"the plan expects given",
     "test_stream.py", "do_not_fit"),
    ("wan.py", "        return self._keys[layer]", "        model.last = 0\n        return self._keys[layer]",
     "test_stream.py", "leaves_the_model"),
    ("schedule.py", "return shift * sigma / (1 + (shift - 1) * sigma)", "return shift * sigma / (1 + shift * sigma)",
     "test_schedule.py", "published_sigmas"),
    ("wan.py", "flow.to(latent.dtype)", "flow.to(latent.dtype) * 1.001", "test_reference.py", ""),
    ("stream.py", "return resize(latent, grid, self.plan.resize)",
     "return resize(latent, grid, 'area')",
     "test_reference.py", ""),
    ("transfer.py", "non_blocking=device.type in NON_BLOCKING", "non_blocking=False",
     "test_bench_meta.py", "control_fails and prompt_and_waits"),
    ("wan.py", "        if layer not in self._keys:", "        if True:",
     "test_bench_meta.py", "control_fails and prompt_and_waits"),
    ("wan.py", "if cache_pass and layer == last:", "if False:",
     "test_bench_meta.py", "control_fails and operations"),
    ("cache.py", "pages.k[:, pages.visible], pages.v", "pages.k[:, pages.visible].clone(), pages.v",
     "test_bench_meta.py", "control_fails and caches"),
    ("decode.py", "        past = self.frames.get(conv)\n", "        past = None\n",
     "test_bench_cpu.py", "exact_decoding"),
    ("reading.py", "if time - back < zero or (first is not None and first.pts <= time):", "if True:",
     "test_reading.py", "any_range"),
    ("reading.py", "            if shown != index + 1:\n", "            if False:\n", "test_reading.py", "evenly"),
    ("reading.py", "round((frame.pts - zero)", "round(frame.pts", "test_reading.py", "any_range"),
    ("reading.py", "or packet.is_discard", "", "test_reading.py", "hides"),
    ("reading.py", "            digest.update(packet)\n", "", "test_reading.py", "by_its_frames"),
    ("reading.py", "    if frame.rotation:", "    if False:", "test_reading.py", "upright"),
    ("handoff.py", "parts[index - 1].stop - frames.start if index else 0", "overlap if index else 0",
     "test_handoff.py", "every_frame"),
    ("handoff.py", "        if found.get(key) != value:\n", "        if False:\n", "test_handoff.py", "something_else"),
    ("handoff.py", "    if video.exists():\n", "    if False:\n", "test_handoff.py", "there_before"),
    ("handoff.py", "        if writer.num_frames != wanted:\n", "        if False:\n",
     "test_handoff.py", "wrong_length"),
    ("handoff.py", "    if joined != part.num_frames:\n", "    if False:\n", "test_handoff.py", "another_program"),
    ("handoff.py", "if any(\".partial\" not in path.suffixes for path in folder.glob(\"seg-*\")):",
     "if record.is_file():",
     "test_handoff.py", "other_settings"),
    ("session/run.py", "                journal.write(position, latent)\n                yield Finished(",
     "                yield Finished(", "test_session_run.py", "resumed_run"),
    ("session/run.py", "max(0, start - memory_frames(self.decoder.vae))", "max(0, start - 20)",
     "test_session_run.py", "vae_remembers"),
    ("session/journal.py", "if metadata.get(\"sha256\") != hash_tensor(latent):", "if False:",
     "test_session_journal.py", "garbage"),
    ("session/video.py", "if kept_frames(old.plan, chunk) == kept_frames(new.plan, other)", "if True",
     "test_session_video.py", "without_sharing and h264"),
    ("session/video.py", "range(section.start, section.stop)", "range(section.start, section.stop + 1)",
     "test_session_video.py", "cut_in_pieces"),
    ("session/video.py", "lengths=[length for _, length in parts], ", "", "test_session_faults.py", "spoilt"),
    ("session/video.py", "part.stop <= count", "part.start <= count", "test_session_faults.py", "png8"),
    ("disk.py", "    partial = partial_name(path)\n    check_folder", "    partial = path\n    check_folder",
     "test_session_faults.py", "full"),
    ("sound.py", "yield from _timed(packets, times)", "yield from packets", "test_sound.py", "exact_times"),
    ("sound.py", "            if packet.pts >= 0:\n", "            if True:\n", "test_sound.py", "move_the_pictures"),
    ("sound.py", "list(islice(track.packets(), 1))", "[]", "test_sound.py", "container_refuses"),
    ("sound.py", "not (format.muxer == \"mp4\" and codec.startswith(\"pcm_\"))", "True",
     "test_session_cli.py", "before_anything_is_loaded"),
    ("sound.py", "packet.pts - round(start / packet.time_base)", "packet.pts", "test_sound.py", "trimmed"),
    ("sound.py", "pictures[0] if pictures else self.stream", "self.stream", "test_sound.py", "late"),
    ("session/journal.py", "            self._check_sound()\n", "", "test_session_sound.py", "as_it_was"),
    ("session/journal.py", "        write_whole(inside(folder / SOUND), sound)", "        pass",
     "test_session_sound.py", "was_stopped"),
    ("session/manifest.py", "        if self.sound and", "        if False and",
     "test_session_sound.py", "pictures_has"),
    ("session/manifest.py", "        if then != now and name == \"sound\":", "        if name == \"sound\":\n"
     "            pass\n        elif False:", "test_session_sound.py", "another_sound"),
    ("session/verbs.py", "if same_sound and manifest.settings.sound:", "if False:",
     "test_session_sound.py", "branch_shares"),
    ("session/verbs.py", "(whole_latent.NAME, SOUND, MANIFEST)]", "(whole_latent.NAME, MANIFEST)]",
     "test_session_sound.py", "cleaning"),
    ("session/verbs.py", "(MANIFEST, SOUND, whole_latent.NAME)", "(MANIFEST, whole_latent.NAME)",
     "test_session_sound.py", "cleaning"),
    ("session/video.py", "range(end), path, metadata, sound_path(folder, manifest))", "range(end), path, metadata)",
     "test_session_sound.py", "was_stopped"),
    ("session/video.py", "pixel_frames), path, metadata, sound_path(folder, manifest))",
     "pixel_frames), path, metadata)", "test_session_sound.py", "was_stopped"),
    ("session/video.py", "inside(folder / section.file), tags)",
     "inside(folder / section.file), tags, sound_path(folder, manifest))", "test_session_sound.py", "pictures_only"),
    ("session/video.py", "SOUND_COPIES * len", "0 * len", "test_session_sound.py", "room"),
    ("cli/videos.py", "sound=args.sound, report=report", "report=report", "test_session_cli.py", "with_and_without"),
    ("cli/videos.py", "    if args.sound:\n", "    if False:\n", "test_session_cli.py", "anything_is_loaded and plain"),
    ("cli/runs.py", "        if settings.sound and not sound:\n", "        if False:\n",
     "test_session_cli.py", "keeps_the_sound"),
]  # fmt: skip


def run_tests(root: Path, test_file: str, name: str) -> int:
    command = ["pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{test_file}", *(["-k", name] if name else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(
        report(chosen([(f"histream_core/{file}", *rest) for file, *rest in BREAKS], __doc__.splitlines()[0]), run_tests)
    )
