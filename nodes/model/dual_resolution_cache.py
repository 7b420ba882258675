"""Node: settings of the two resolutions of a MODEL."""

from dataclasses import replace

from ...histream_core.plan.chunks import RESIZE_MODES
from ...histream_core.plan.guidance import MAX_CFG, MAX_NAG, Guidance
from ...histream_core.plan.presets import PRESETS
from ...histream_core.plan.storage import TIERS
from ..host import sampler as host
from ..host.api import CATEGORY, io
from ..host.checks import check_model
from ..host.timeline import check_negative
from ..settings import AUTO


def ntk_input(name: str, tooltip: str):
    """The input of the NTK factor, which stretches spatial positions, of one resolution."""
    return io.Float.Input(name, default=0.0, min=0.0, max=20.0, step=0.1, optional=True, advanced=True, tooltip=tooltip)


def guidance_input(name: str, largest: float, tooltip: str):
    """The input of one kind of guidance by a negative prompt."""
    limits = {"default": 1.0, "min": 1.0, "max": largest, "step": 0.1}
    return io.Float.Input(name, **limits, optional=True, advanced=True, tooltip=tooltip)


class DualResolutionCache(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamDualResolutionCache",
            display_name="Dual-Resolution Cache",
            category=CATEGORY,
            description="Sets how a causal Wan MODEL works at two resolutions: early steps at LOW, late steps at HIGH, "
            "with a memory of past frames at each. Needed only to change something: the sampler has the same defaults.",
            search_aliases=["HiStream", "DRC", "NTK", "causal video", "negative prompt", "CFG", "NAG"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan 2.1 text-to-video model (causal, few-step)."),
                io.Combo.Input(
                    "preset",
                    options=[AUTO, *PRESETS],
                    default=AUTO,
                    tooltip="Which family of weights this is: it sets steps, time shift, window and positions. "
                    "auto: what Load Model found out, else self-forcing.",
                ),
                io.Float.Input(
                    "low_scale",
                    default=0.5,
                    min=0.25,
                    max=1.0,
                    step=0.25,
                    tooltip="Side of the LOW grid as a part of the HIGH grid. 0.5: LOW steps cost about a quarter or "
                    "less. 1: both are the same size, nothing is saved. Must leave even numbers of latent cells.",
                ),
                ntk_input(
                    "ntk_low",
                    "NTK factor of the spatial positions at LOW. 1: as in training. More: for sizes above those "
                    "trained at; too much blurs, too little repeats objects. 0: from preset and size.",
                ),
                ntk_input("ntk_high", "The same at HIGH. HiStream's value for 1080p is 5. 0: from preset and size."),
                io.Combo.Input(
                    "temporal_positions",
                    options=[AUTO, "clamped", "absolute"],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="clamped (what auto means): the first frame is never further away in time than in "
                    "training, so there is no limit of length. absolute: every frame at its own time, as "
                    "Self-Forcing does; degrades past 81 frames.",
                ),
                io.Combo.Input(
                    "resize",
                    options=[AUTO, *RESIZE_MODES],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="How latents go between LOW and HIGH. auto: area-down. area-down: plain averages when made "
                    "smaller, smooth when enlarged. bilinear: smooth both ways. bicubic: sharper, rings at hard edges. "
                    "area: blocky when enlarged.",
                ),
                io.Combo.Input(
                    "kv_memory",
                    options=list(TIERS),
                    default="full",
                    optional=True,
                    advanced=True,
                    tooltip="GPU memory of past frames, at 1080p with 1.3B weights. full: 10.5 GB. lean: 5.6 GB, for "
                    "one more copy in each layer. cpu: 0.7 GB, and 5.3 GB of main memory, from where they come while "
                    "the GPU computes. These three give the same frames. fp8: 3.0 GB, and other frames, a little.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative prompt: what the video shall not show, such as blurry, text. Needed with cfg "
                    "or nag. Few-step weights make good videos without one; try it where something unwanted comes back "
                    "in every seed.",
                ),
                guidance_input(
                    "cfg",
                    MAX_CFG,
                    "Classifier-free guidance, for weights that are not distilled, such as plain Wan: 3 to 6. Takes "
                    "twice the time and twice the memory of past frames. 1: none. A CFGGuider sets it too.",
                ),
                guidance_input(
                    "nag",
                    MAX_NAG,
                    "Normalized attention guidance, a factor for few-step weights: 5 to 11. Costs little, as it acts "
                    "only where the layers read the prompt. 1: none.",
                ),
                io.Int.Input(
                    "span",
                    default=0,
                    min=0,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip="Latent frames that the first frame stands behind a chunk at most, with clamped positions. "
                    "3 is worth a try in videos of a minute: an earlier demo model's shapes held longer. 0: as far "
                    "as in training, from the preset.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The same model, with these settings, for the HiStream samplers.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        preset=AUTO,
        low_scale=0.5,
        ntk_low=0.0,
        ntk_high=0.0,
        temporal_positions=AUTO,
        resize=AUTO,
        kv_memory="full",
        negative=None,
        cfg=1.0,
        nag=1.0,
        span=0,
    ):
        check_model(model)
        if span and temporal_positions == "absolute":
            raise ValueError(f"absolute positions have no span: set temporal_positions to clamped, or span {span} to 0")
        guidance = Guidance(cfg=cfg, nag=nag)
        check_negative(guidance, negative)
        before = host.model_settings(model)
        settings = replace(
            before,
            preset=before.preset if preset == AUTO else preset,
            low_scale=low_scale,
            ntk_low=ntk_low or None,
            ntk_high=ntk_high or None,
            temporal=None if temporal_positions == AUTO else temporal_positions,
            span=span or None,
            resize=None if resize == AUTO else resize,
            kv=kv_memory,
            guidance=guidance,
            negative=negative,
        )
        return io.NodeOutput(host.attach(model, settings))
