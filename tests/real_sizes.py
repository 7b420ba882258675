"""Plans at the sizes that people use; nothing is computed at them."""

import tiny

from histream_core.plan.presets import find_preset


def hd(mode, *, width=1920, height=1088, num_frames=21, preset="histream", **settings):
    return tiny.plan_of(find_preset(preset), mode, width=width, height=height, num_frames=num_frames, **settings)
