"""Stand-ins for nodes of other packs: each does to a MODEL what the pack's node does, and no more."""

import types
from unittest.mock import patch

import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP


class StepCacheAroundCalls:
    """Stands for TeaCache, MagCache and WaveSpeed: a function around every call replaces the forward meanwhile."""

    INPUT_TYPES = dict

    def apply(self, model):
        model = model.clone()
        model.model_options["transformer_options"]["rel_l1_thresh"] = 0.2
        network = model.get_model_object("diffusion_model")
        replaced = patch.multiple(network, forward_orig=lambda x, *args, **kwargs: x)

        def around(apply_model, asked):
            with replaced:
                return apply_model(asked["input"], asked["timestep"], **asked["c"])

        model.set_model_unet_function_wrapper(around)
        return model


class StepCacheByWrapper:
    """Stands for another pack's EasyCache: it keeps the last input and answer, and compares the next ones."""

    INPUT_TYPES = dict

    def apply(self, model):
        model, last = model.clone(), []

        def cached(executor, x, *args, **kwargs):
            if last and (x - last[0]).abs().mean() < 1e-6:
                return last[1]
            last[:] = [x, executor(x, *args, **kwargs)]
            return last[1]

        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "cached", cached)
        return model


class ZeroStarGuidance:
    """Stands for KJNodes' CFGZeroStarAndInit: mixes positive and negative, and leaves the first step out."""

    INPUT_TYPES = dict

    def apply(self, model):
        def zero_star(args):
            cond, uncond = (args[name].view(args[name].shape[0], -1) for name in ("cond", "uncond"))
            alpha = (cond * uncond).sum() / (uncond**2).sum()
            return args["uncond"] * alpha + args["cond_scale"] * (args["cond"] - args["uncond"] * alpha)

        model = model.clone()
        model.set_model_sampler_cfg_function(zero_star)
        return model


class NegativeInAttention:
    """Stands for KJNodes' WanVideoNAG: replaces the forward of cross-attention."""

    INPUT_TYPES = dict

    def apply(self, model):
        def forward(self, x, context, **kwargs):
            return x

        model = model.clone()
        for index, block in enumerate(model.get_model_object("diffusion_model").blocks):
            key = f"diffusion_model.blocks.{index}.cross_attn.forward"
            model.add_object_patch(key, types.MethodType(forward, block.cross_attn))
        return model


class GuidanceForSomeSteps:
    """Stands for the host's CFGOverride: another CFG while the network is called."""

    INPUT_TYPES = dict

    def apply(self, model):
        def with_cfg(executor, *args, **kwargs):
            executor.class_obj.cfg = 4.0
            try:
                return executor(*args, **kwargs)
            finally:
                executor.class_obj.cfg = 1.0

        model = model.clone()
        model.add_wrapper(WrappersMP.PREDICT_NOISE, with_cfg)
        return model


class TwoCalls:
    """Stands for perturbed guidance by a wrapper: asks the network a second time."""

    INPUT_TYPES = dict

    def apply(self, model):
        model = model.clone()
        model.add_wrapper(WrappersMP.CALC_COND_BATCH, lambda executor, *args: (executor(*args), executor(*args))[1])
        return model


class WholeNetworkCompiled:
    """Stands for TeaCache's Compile Model: puts a compiled network in the place of the MODEL's."""

    INPUT_TYPES = dict

    def apply(self, model):
        model = model.clone()
        model.add_object_patch("diffusion_model", torch.compile(model.get_model_object("diffusion_model")))
        return model


class AnswerScaled:
    """Stands for Epsilon Scaling: changes the network's answer after every step, and asks nothing."""

    INPUT_TYPES = dict

    def apply(self, model, factor=0.9):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * factor)
        return model


class FeedForwardInPieces:
    """Stands for KJNodes' chunked feed-forward: replaces the forward of a part that the engine calls."""

    INPUT_TYPES = dict

    def apply(self, model):
        def forward(self, x):
            return torch.cat([torch.nn.Sequential.forward(self, piece) for piece in x.chunk(2, dim=1)], dim=1)

        model = model.clone()
        for index, block in enumerate(model.get_model_object("diffusion_model").blocks):
            model.add_object_patch(f"diffusion_model.blocks.{index}.ffn.forward", types.MethodType(forward, block.ffn))
        return model


class AttentionChosen:
    """Stands for KJNodes' Sage and Flash Attention patches: another function computes attention."""

    INPUT_TYPES = dict

    def apply(self, model):
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = lambda own, *args, **kwargs: own(
            *args, **kwargs
        )
        return model


class AttentionBackend:
    """Do as the host's Model Attention Backend: put one of its attention functions in the place of the usual one."""

    INPUT_TYPES = dict

    def apply(self, model):
        from comfy.ldm.modules.attention import get_attention_function

        def chosen(usual, *args, **kwargs):
            return get_attention_function("pytorch")(*args, **kwargs)

        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = chosen
        return model


class FoldedFeedForward:
    """Do as the host's Wan from 0.40 on: the feed-forward is a Sequential whose forward folds its layers together."""

    INPUT_TYPES = dict

    def apply(self, model):
        class Folded(torch.nn.Sequential):
            def forward(self, x):
                return self[2](torch.nn.functional.gelu(self[0](x), approximate="tanh"))

        for block in model.model.diffusion_model.blocks:
            block.ffn = Folded(*block.ffn)
        return model


class Watched:
    """Stands for previewers and memory reports: around the sampling, and told when it begins."""

    INPUT_TYPES = dict

    def apply(self, model):
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "seen", lambda executor, *args, **kw: executor(*args, **kw))
        model.add_wrapper_with_key(
            WrappersMP.PREPARE_SAMPLING, "m", lambda executor, *args, **kw: executor(*args, **kw)
        )
        model.add_callback(CallbacksMP.ON_PRE_RUN, lambda patcher: None)
        return model


class NoiseShuffled:
    """Stands for FreeNoise: gives the sampler other noise."""

    INPUT_TYPES = dict

    def apply(self, model):
        def shuffled(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
            return executor(guider, sigmas, extra_args, callback, noise.flip(2), *args, **kwargs)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "shuffled", shuffled)
        return model


class OptionAlone:
    """Leaves an option on the MODEL that only a part of its own, which is not there, would read."""

    INPUT_TYPES = dict

    def apply(self, model):
        model = model.clone()
        model.model_options["transformer_options"]["enhance_weight"] = 2.0
        return model


def packed_operations():
    """Layers as those of GGUF loaders: weights packed in bytes, and a state dict that lists tensors without content."""
    import comfy.ops

    class Packed(torch.Tensor):
        """Bytes of float16 values, which calls itself as large as what is in it."""

        def clone(self, *args, **kwargs):
            return self

        def detach(self, *args, **kwargs):
            return self

    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
            weight = state_dict[f"{prefix}weight"]
            packed = weight.half().contiguous().view(torch.uint8).as_subclass(Packed)
            self.weight = torch.nn.Parameter(packed, requires_grad=False)
            self.bias = torch.nn.Parameter(state_dict[f"{prefix}bias"], requires_grad=False)

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            destination[f"{prefix}weight"] = torch.empty_like(self.weight.as_subclass(torch.Tensor), device="meta")
            destination[f"{prefix}bias"] = torch.empty_like(self.bias, device="meta")
            destination[f"{prefix}temp.weight"] = torch.empty(4, 4, device="meta")

        def forward(self, x):
            weight = self.weight.as_subclass(torch.Tensor).view(torch.float16).to(x)
            return torch.nn.functional.linear(x, weight, self.bias.to(x))

    return type("PackedOperations", (comfy.ops.manual_cast,), {"Linear": Linear})
