"""A stand-in for the host's file of that name (0.38 and later): its node, and no more of it than lies on a MODEL."""

from comfy.patcher_extension import CallbacksMP


def make_attention_override(previous):
    def override(func, *args, **kwargs):
        return func(*args, **kwargs) if previous is None else previous(func, *args, **kwargs)

    return override


def install_override(options):
    options["optimized_attention_override"] = make_attention_override(options.get("optimized_attention_override"))


class BlockSparseAttention:
    """Puts its function in the place of attention, now and again at each step."""

    INPUT_TYPES = dict

    def apply(self, model, *, now=True):
        model = model.clone()
        if now:
            install_override(model.model_options["transformer_options"])
        model.add_callback_with_key(
            CallbacksMP.ON_PREPARE_STATE,
            "block_sparse_attention",
            lambda patcher, timestep, options: install_override(options["transformer_options"]),
        )
        return model
