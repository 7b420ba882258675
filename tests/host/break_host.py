# ruff: noqa: E501
"""Break the nodes on purpose, one place at a time, and see the host tests notice.

Run by hand with the Python that runs the host tests: `python tests/host/break_host.py` (some minutes; `--only WORD` for
some). Each entry replaces one piece of text in a copy of the pack and names the test that must then fail.
"""

import importlib
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "laws"))

from breaking import broken_pack, chosen, report, run_in_fork

sys.path.pop()  # the copy's tests import their own

# file, what stands there, what it is broken to, test file, part of the test's name
BREAKS = [
    ("histream_core/network/forward.py", "embed_time(timestep.repeat_interleave(frames)", "embed_time(timestep.repeat_interleave(1)",
     "test_sampler.py", "bit_for_bit"),
    ("histream_core/network/layer.py", "torch.unflatten(projections.norm_q(projections.q(x))",
     "torch.unflatten(projections.norm_q(torch.nn.functional.linear(x, projections.q.weight, projections.q.bias))",
     "test_sampler.py", "another_loader"),
    ("nodes/host/sampler.py", "    model = model.clone()\n    model.set_attachments",
     "    model = model.clone()\n    model.patches = {}\n    model.set_attachments", "test_sampler.py", "with_a_lora"),
    ("nodes/host/run.py", "dtype = self.base.get_dtype_inference()", "dtype = self.base.get_dtype()",
     "test_sampler.py", "quantised"),
    ("nodes/host/run.py", "attend_by_host(q, k, v, transformer_options=self._transformer_options)", "attend(q, k, v)",
     "test_sampler.py", "attention_that_a_user_chose"),
    ("nodes/host/run.py", 'transformer_options["block_index"] = index', 'transformer_options["block_index"] = 0',
     "test_sampler.py", "attention_that_a_user_chose"),
    ("nodes/host/sampler.py", "        return executor(model, shape, conds, *args", "        return executor(model, noise_shape, conds, *args",
     "test_sampler.py", "asked_for_one_chunk"),
    ("nodes/host/sampler.py", "    if not isinstance(function, ChunkSampler | PlannedSampler):", "    if isinstance(function, ChunkSampler | PlannedSampler):",
     "test_sampler.py", "asked_for_one_chunk and twin"),
    ("nodes/host/sampler.py", "extra_args.get(\"seed\") or 0)", "int(x.abs().sum()))",
     "test_sampler.py", "sampler_twin"),
    ("nodes/host/display.py", "        elif steps > self._steps:\n", "        else:\n",
     "test_sampler.py", "progress_counts"),
    ("nodes/host/display.py", "self.show_pictures(self._previewer(clean), progress)", "self.show_pictures([], progress)",
     "test_sampler.py", "progress_counts"),
    ("nodes/host/display.py", "self._pictures = cycle(pictures)", "pass",
     "test_sampler.py", "progress_counts"),
    ("histream_core/runs/progress.py", "        self.pace.begin(step)\n", "",
     "test_sampler.py", "line_under"),
    ("nodes/host/preview.py", "        small = small_decoder(model.load_device)", "        small = None", "test_sampler.py", "taehv_in_vae_approx"),
    ("nodes/host/preview.py", "return open_decoder(load_vae(path, device=device))",
     "return open_decoder(load_vae(path, device=device), normalised=False)", "test_sampler.py", "taehv_in_vae_approx"),
    ("nodes/host/preview.py", "        decoder.reset()", "        pass", "test_sampler.py", "decoded_small"),
    ("nodes/host/kept.py", "replay(manifest.plan, journal.finished).num_steps() + missing", "manifest.plan.num_steps() + missing",
     "test_runs.py", "how_far"),
    ("nodes/host/preview.py", "model.model.process_latent_out(clean[:1].float()).to(vae.device)", "clean[:1].float()",
     "test_sampler.py", "true_colours"),
    ("nodes/host/sampler.py", "        model.set_additional_models(WRAPPER_KEY, [vae.patcher])", "        pass",
     "test_sampler.py", "true_colours"),
    ("nodes/host/run.py", "        clean = self.model(latent, latent.new_full((self.batch,), step.sigma), **self.extra_args)",
     "        try:\n            clean = self.model(latent, latent.new_full((self.batch,), step.sigma), **self.extra_args)\n"
     "        except BaseException:\n            clean, self._call = latent, None", "test_sampler.py", "cancel"),
    ("nodes/host/caches.py", "device, keep_loaded=keep)", "device)", "test_sampler.py", "room_for_the_caches"),
    ("nodes/host/run.py", "if self._call is not None:", "if False:", "test_refusals.py", "skips_steps"),
    ("nodes/host/sampler.py", "        check_finite(chunk, f", "        str(f",
     "test_refusals.py", "makes_nan"),
    ("nodes/host/checks.py", "    if asked:\n", "    if False:\n", "test_refusals.py", "patches_that_would and rope"),
    ("nodes/host/checks.py", "    if unused:\n        raise ValueError(f\"another node replaced", "    if False:\n        raise "
     "ValueError(f\"another node replaced", "test_refusals.py", "patches_that_would and forward"),
    ("nodes/host/run.py", "if context.shape != given.shape or not torch.equal(", "if False and not torch.equal(",
     "test_refusals.py", "changes_the_prompt"),
    ("nodes/host/checks.py", "    if cfg != 1:\n", "    if False:\n", "test_refusals.py", "guidance"),
    ("nodes/host/checks.py", "    if sigmas.shape != wanted.shape or not", "    if False and not",
     "test_refusals.py", "sigmas_of_another"),
    ("nodes/host/preview.py", "PREVIEW_CELLS / max(latents.shape[-2:])", "1", "test_sampler.py", "decoded_small"),
    ("nodes/host/checks.py", "    if any(torch.count_nonzero(frame) for frame in samples.unbind(2)):\n", "    if False:\n", "test_refusals.py", "with_content"),
    ("nodes/host/decode.py", "yield frame.to(vae.device)", "yield (decoder.reset(), frame.to(vae.device))[1]",
     "test_decode.py", "hosts_own_decode"),
    ("histream_core/vae/decode.py", "if not (m.weight.is_meta or m", "if not (True or m", "test_decode.py", "are_2d_in_the_hosts"),
    ("nodes/host/vae.py", "raw_latents=getattr(module, \"latent_format\", None) is None", "raw_latents=True",
     "test_decode.py", "taehv_in_float16"),
    ("nodes/video/streaming_vae_decode.py", "speed=speed or DEFAULTS", "speed=DEFAULTS", "test_decode.py", "strips_and_layout"),
    ("nodes/host/backend.py", "with_scenes(rest | {\"samples\": made}, plan)", "rest | {\"samples\": made}",
     "test_timeline.py", "decoded_as_a_video"),
    ("nodes/host/kept.py", 'with_scenes({"samples": samples}, manifest.plan)', '{"samples": samples}',
     "test_timeline.py", "decoded_as_a_video"),
    ("nodes/host/decode.py", "            if index:\n", "            if False:\n", "test_timeline.py", "decoded_as_a_video"),
    ("histream_core/stream/timeline.py", "*found.anchors], found.scenes))", "*found.anchors, *found.scenes]))",
     "test_timeline.py", "sees_nothing"),
    ("nodes/host/runs.py", "anchors=placed.anchors, scenes=placed.scenes\n", "anchors=placed.anchors\n",
     "test_timeline.py", "extended_and_branched"),
    ("nodes/video/streaming_vae_decode.py", "DecodePace(latents.shape[0], ", "DecodePace(1, ", "test_decode.py", "how_far_it_is"),
    ("nodes/host/vae.py", "from_state_dict(module.state_dict())",
     "from_state_dict({key: value.clone() for key, value in module.state_dict().items()})",
     "test_decode.py", "exist_once"),
    ("nodes/host/decode.py", "    writer.keep_on = (", "    stopped = (", "test_decode.py", "cancel"),
    ("nodes/video/streaming_vae_decode.py", "choice = output or VideoChoice(", "choice = VideoChoice(", "test_decode.py", "chooses_folder"),
    ("nodes/host/decode.py", "    check_space(nearest_existing(_output_folder())", "    str(_output_folder()) or (0", "test_decode.py", "without_room"),
    ("nodes/host/backend.py", "host_vae.open_host_decoder(self.vae, self.speed)", "host_vae.open_host_decoder(self.vae, self.speed, normalised=False)",
     "test_runs.py", "is_the_plain_one"),
    ("histream_core/runs/store/whole_latent.py", 'np.float32, "c"', 'np.float32, "r+"', "test_runs.py", "changes_no_file"),
    ("nodes/host/backend.py", "                    given=given,\n", "                    given=lambda chunk: given(chunk) * 0,\n",
     "test_runs.py", "comes_to_the_same_bytes and 25"),
    ("nodes/host/runs.py", "if choice.resume else ()", "if False else ()",
     "test_runs.py", "pressed_again"),
    ("nodes/host/kept.py", "        if choice.discard:", "        if False:", "test_runs.py", "can_discard"),
    ("nodes/host/kept.py", "on_cancel=choice.snapshots > 0", "on_cancel=False", "test_runs.py", "snapshot_on_cancel"),
    ("nodes/host/fingerprint.py", "if patches or replaced else own", "if replaced else own", "test_runs.py", "something_else and lora"),
    ("nodes/host/fingerprint.py", "        weight = entries[0][0]", "        weight = patcher.model.state_dict()[key]", "test_runs.py", "while_it_is_in_the_weights"),
    ("histream_core/runs/describe.py", "    if problems:\n", "    if False:\n",
     "test_runs.py", "memory_that_is_too_small"),
    ("nodes/host/graph.py", "        waiting += inputs.values()", "        pass", "test_runs.py", "carries_the_graph"),
    ("nodes/host/run_folders.py", "or not folder.is_relative_to(root)", "", "test_runs.py", "refused_and_nothing"),
    ("nodes/host/images.py", "    if needed > limit_gib:\n", "    if False:\n", "test_decode.py", "above_the_limit"),
    ("nodes/host/load.py", 'checkpoint = check(read_checkpoint(path), "wan")', "checkpoint = read_checkpoint(path)",
     "test_load.py", "no_wan_model and incomplete"),
    ("nodes/host/load.py", "ModelSettings(preset=preset)", "ModelSettings()", "test_load.py", "travels"),
    ("nodes/host/load.py", "return {DEMO_TOKENS: token_table([text])}", "return {DEMO_TOKENS: token_table([text])[:, :8]}",
     "test_load.py", "own_text_encode"),
    ("nodes/host/run.py", "kv=self.kv)", 'kv="full")', "test_sampler.py", "exact_memory_tiers"),
    ("nodes/host/caches.py", "kv=kv)", 'kv="full")', "test_sampler.py", "asked_for_one_chunk"),
    ("nodes/host/memory.py", "kv=host.model_settings(model).kv,", 'kv="full",', "test_runs.py", "refused_for"),
    ("histream_core/runs/describe.py", "fp8_kv=backend.kv == \"fp8\"", "fp8_kv=False",
     "test_runs.py", "another_exact_memory_tier"),
    ("nodes/model/dual_resolution_cache.py", "before,\n            preset=before.preset if preset == AUTO else preset,",
     "before,\n            preset=None if preset == AUTO else preset,", "test_load.py", "travels"),
    ("nodes/host/frames.py", "frames_of(source, window.start + part.start,", "frames_of(source, part.start,",
     "test_frames.py", "trim_is_honoured"),
    ("nodes/host/frames.py", "    if isinstance(video, InputImpl.VideoFromComponents):", "    if False:",
     "test_frames.py", "create_video"),
    ("nodes/host/frames.py", "_index_of_file(source, about.st_size, about.st_mtime_ns)", "_index_of_file(source, 0, 0)",
     "test_frames.py", "counted_once"),
    ("nodes/host/frames.py", "        comfy.model_management.throw_exception_if_processing_interrupted()\n        if frame",
     "        if frame", "test_frames.py", "cancel_stops"),
    ("nodes/host/frames.py", "        comfy.model_management.throw_exception_if_processing_interrupted()\n        yield some",
     "        yield some", "test_frames.py", "cancel_leaves"),
    ("nodes/host/frames.py", "images[part.new_from :, ..., :3]", "images[..., :3]", "test_frames.py", "goes_out"),
    ("nodes/host/frames.py", "    if len(images) != len(part.frames):\n", "    if False:\n",
     "test_frames.py", "another_number"),
    ("nodes/host/frames.py", '    if video.get_color_space().startswith("HDR"):\n', "    if False:\n",
     "test_frames.py", "hdr"),
    ("nodes/host/images.py", "    if needed > limit_gib:\n", "    if False:\n", "test_frames.py", "does_not_fit"),
    ("nodes/video/ranges_to_video.py", "blocked(None)", 'blocked("not yet")', "test_frames.py", "in_silence"),
    ("nodes/video/ranges_to_video.py", 'float("nan")', "0", "test_frames.py", "was_deleted"),
    ("histream_core/video/edit/ranges.py", '"video": part.source', '"video": ""', "test_frames.py", "another_video"),
    ("histream_core/runs/verbs.py", "opening.create_run(folder, manifest, run.texts, run.sound)", "opening.create_run(folder, manifest, run.texts)",
     "test_runs.py", "sound_goes_into"),
    ("nodes/host/runs.py", "sound=hash_bytes(choice.sound) if choice.sound else None", "sound=None",
     "test_runs.py", "sound_goes_into and ffv1"),
    ("histream_core/runs/verbs.py", "new.chunk, manifest, texts, new.sound)", "new.chunk, manifest, texts)",
     "test_runs.py", "another_sound"),
    ("nodes/host/sound.py", "    check_sound(source, format)\n", "", "test_runs.py", "refused_by_the_video_output"),
    ("nodes/host/sound.py", "    if isinstance(video, InputImpl.VideoFromComponents):", "    if False:",
     "test_runs.py", "refused_by_the_video_output"),
    ("nodes/host/sound.py", "source, start=start, duration=duration", "source", "test_decode.py", "the_sound_of"),
    ("nodes/host/decode.py", "metadata=tags, sound=sound)", "metadata=tags)", "test_decode.py", "the_sound_of"),
    ("nodes/host/sampler.py", "shape, levers=self.speed.levers, given", "shape, given", "test_levers.py", "under_levers_is_the_cores"),
    ("histream_core/stream/stream.py", "self.denoise(self.noisy, chunk.kept", "self.denoise(clean, chunk.kept",
     "test_levers.py", "byte_for_byte and last-step"),
    ("nodes/host/run.py", '        transformer_options["wrappers"].get(WrappersMP.APPLY_MODEL, {}).pop(COMPILE_KEY, None)\n', "",
     "test_compile.py", "nothing_but_speed"),
    ("nodes/host/speed.py", "    if not asked:\n        return kernels\n", "    return kernels\n",
     "test_compile.py", "nothing_but_speed"),
    ("nodes/host/run.py", "kernels.block_forward(plan, warn=host_log.warn)", "kernels.block_forward(plan, warn=str)",
     "test_compile.py", "says_so"),
    ("nodes/host/speed.py", 'if speed.attention == "auto" and plain and is_hopper(model.load_device):',
     'if speed.attention == "auto":', "test_speed.py", "change_nothing"),
    ("nodes/host/speed.py", 'if speed.attention == "auto" and plain and', 'if speed.attention == "auto" and',
     "test_speed.py", "hopper"),
    ("nodes/host/speed.py", 'if override and speed.attention not in ("auto", "host"):', "if False:",
     "test_speed.py", "two_nodes"),
    ("histream_core/network/kernels.py", "choose_elementwise(speed.elementwise, run_block))", "run_block)",
     "test_speed.py", "that_compute"),
    ("histream_core/network/ops/linears.py", " and type(args[1]) in (Tensor, nn.Parameter)", " and type(args[1]) is Tensor",
     "test_speed.py", "every_product"),
    ("nodes/host/runs.py", "open_backend(model, vae, speed or journal.manifest.settings.speed)", "open_backend(model, vae, speed or Speed())",
     "test_speed.py", "kept_run"),
    ("histream_core/runs/describe.py", "fp8\", speed=backend.speed.approximations)", "fp8\")",
     "test_speed.py", "kept_run"),
    ("nodes/host/memory.py", '{"vae_width": module.dim}', '{"vae_width": 96}', "test_plan_and_drift.py", "refused_by"),
    ("nodes/host/memory.py", "card_line(found, device_memory(device))", "card_line(found, 24)",
     "test_plan_and_drift.py", "fits_there"),
    ("nodes/host/memory.py", "apart=not kept", "apart=True", "test_plan_and_drift.py", "disk_counts"),
    ("nodes/host/memory.py", "files=_lighter_files()", 'files=("taehv",)', "test_plan_and_drift.py", "where_its_file"),
    ("nodes/settings.py", "        anchor_match=window.anchor_match,\n", "", "test_plan_and_drift.py", "among_its_settings"),
    ("nodes/host/drift.py", "meter(_frames(clip), clip.fps)", "meter(_frames(clip), 8)",
     "test_plan_and_drift.py", "draws_what"),
    ("nodes/__init__.py", "        await renamed.register()", "        pass", "test_install.py", "is_renamed"),
    ("nodes/host/api.py", 'CATEGORY = "HiStream"', 'import kornia\n\nCATEGORY = "HiStream"', "test_install.py", "well_under"),
    ("nodes/host/api.py", 'CATEGORY = "HiStream"', 'import histream_core\n\nCATEGORY = "HiStream"', "test_install.py", "for_its_own"),
    ("nodes/host/api.py", 'CATEGORY = "HiStream"', 'import transformers\n\nCATEGORY = "HiStream"', "test_install.py", "may_have"),
    ("pyproject.toml", '"einops",', '"einops>=99",', "test_install.py", "changes_no_package"),
    ("nodes/host/run.py", "dtype = self.base.get_dtype_inference()", "dtype = self.base.get_dtype()", "test_coexistence.py", "every_flag"),
    ("requirements.txt", "# Nothing:", "einops>=99\n# Nothing:", "test_install.py", "changes_no_package"),
    ("pyproject.toml", 'path = "histream_core/__init__.py"', 'path = ""', "test_install.py", "registry"),
    ("nodes/sampling/step_schedule.py", "        if mode == CUSTOM and not steps.strip():\n", "        if False:\n",
     "test_refusals.py", "steps_that_are_none"),
    ("nodes/host/run_folders.py", "if not (root / prefix).resolve().is_relative_to(root):", "if False:",
     "test_refusals.py", "in_one_line"),
    ("nodes/host/backend.py", "        guide(self.model, [[prompts[0]", "        del prompts[1:]\n        guide(self.model, [[prompts[0]",
     "test_timeline.py", "written_timeline"),
    ("nodes/host/backend.py", "    plan, base = placed.plan, model.model\n", "    plan, base = sampler.plan(samples.shape), model.model\n",
     "test_timeline.py", "written_timeline"),
    ("nodes/sampling/prompt_timeline.py", "Timeline((*told.cues, cue), (*told.positives, positive))",
     "Timeline((told.cues[0], cue), (told.positives[0], positive))", "test_timeline.py", "chain_of_sections"),
    ("nodes/host/sampler.py", "    plan = function.plan(shape, timeline_of(guider.conds.get(\"positive\")))\n",
     "    plan = replace(function, first_frame=None).plan(shape)\n    guider.conds[\"positive\"][0].pop(\"histream_timeline\", 0)\n",
     "test_timeline.py", "sampler_twin"),
    ("nodes/host/runs.py", "words=inputs.words, before=before)", "words=told.words)",
     "test_timeline.py", "extended_and_branched"),
    ("nodes/host/sampler.py", "base.process_latent_in(first.latent)", "first.latent", "test_timeline.py", "network_begins_with"),
    ("histream_core/runs/verbs.py", "    if run.given is not None and not journal.finished:\n", "    if False:\n",
     "test_timeline.py", "needs_it_no_more"),
    ("histream_core/runs/describe.py", "fingerprint=dict(manifest.fingerprint) | backend.fingerprint()", "fingerprint=backend.fingerprint()",
     "test_timeline.py", "needs_it_no_more"),
    ("nodes/host/first_frame.py", "    if first.latent.shape[-2:] != tuple(shape[-2:]):", "    if False:",
     "test_timeline.py", "in_a_sentence"),
    ("nodes/host/first_frame.py", "fit_picture(picture, size, fit)", "fit_picture(picture, size)",
     "test_timeline.py", "fitted_to_the_latent"),
    ("nodes/host/run.py", "        if self._call is None:\n", "        if False:\n", "test_coexistence.py", "several_prompts"),
    ("nodes/host/preview.py", "if type(previewer).__module__ != latent_preview.__name__:", "if False:",
     "test_coexistence.py", "another_pack"),
    ("nodes/host/run.py", "        if self._call is not None:\n", "        if False:\n",
     "test_coexistence.py", "step_caches"),
    ("nodes/host/log.py", "context.node_id, instance.client_id)", "context.node_id)", "test_sampler.py", "to_no_other"),
]  # fmt: skip


def import_host() -> None:
    """Import the host once; every broken pack then runs in a fork of this process."""
    sys.path.insert(0, str(Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()))
    from comfy.cli_args import args

    args.cpu = True
    for name in ("comfy.samplers", "comfy.sd", "nodes"):
        importlib.import_module(name)


def run_tests(root: Path, test_file: str, name: str) -> int:
    return run_in_fork(root, f"tests/host/{test_file}", "-k", name)


def main() -> int:
    breaks = chosen(BREAKS, __doc__.splitlines()[0])
    import_host()
    with broken_pack("__init__.py", "comfy_entrypoint", "comfy_entrypoint") as root:  # as it is
        for test_file in sorted({entry[3] for entry in breaks}):
            if run_tests(root, test_file, "not server") == 1:
                sys.exit(f"{test_file} fails as it is: mend that first")
    return report(breaks, run_tests)


if __name__ == "__main__":
    sys.exit(main())
