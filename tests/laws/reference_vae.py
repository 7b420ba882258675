"""The Wan VAE once more, over the whole clip at once: plain convolutions on the weights, zero padded in time.

It shares no code with the engine: neither its modules' forwards nor its streaming; weights come as a state dict.
"""

import torch
import torch.nn.functional as F


def conv3d(w, name, x, *, past=None, stride=1):
    """Causal convolution; `past` zero frames in front (the kernel's reach by default)."""
    weight = w[f"{name}.weight"]
    kt, kh, kw = weight.shape[2:]
    x = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2, kt - 1 if past is None else past, 0))
    return F.conv3d(x, weight, w[f"{name}.bias"], stride=(stride, 1, 1))


def norm(w, name, x):
    gamma = w[f"{name}.gamma"].reshape(1, -1, 1, 1, 1)
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) * x.shape[1] ** 0.5 * gamma


def by_frame(function, x):
    return torch.stack([function(frame) for frame in x.unbind(2)], dim=2)


def residual(w, name, x):
    y = conv3d(w, f"{name}.residual.2", F.silu(norm(w, f"{name}.residual.0", x)))
    y = conv3d(w, f"{name}.residual.6", F.silu(norm(w, f"{name}.residual.3", y)))
    return y + (conv3d(w, f"{name}.shortcut", x) if f"{name}.shortcut.weight" in w else x)


def attention(w, name, x):
    def one_frame(frame):
        b, c, height, width = frame.shape
        qkv = F.conv2d(frame, w[f"{name}.to_qkv.weight"], w[f"{name}.to_qkv.bias"]).flatten(2)
        q, k, v = qkv.chunk(3, dim=1)
        mixed = v @ torch.softmax(q.transpose(1, 2) @ k / c**0.5, dim=-1).transpose(1, 2)
        return F.conv2d(mixed.reshape(b, c, height, width), w[f"{name}.proj.weight"], w[f"{name}.proj.bias"])

    return x + by_frame(one_frame, norm(w, f"{name}.norm", x))


def down(w, name, x):
    conv = w[f"{name}.resample.1.weight"], w[f"{name}.resample.1.bias"]
    x = by_frame(lambda f: F.conv2d(F.pad(f, (0, 1, 0, 1)), *conv, stride=2), x)
    if f"{name}.time_conv.weight" not in w or x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], conv3d(w, f"{name}.time_conv", x, past=0, stride=2)], dim=2)


def up(w, name, x):
    if f"{name}.time_conv.weight" in w and x.shape[2] > 1:
        first, rest = x[:, :, :1], x[:, :, 1:]
        even, odd = conv3d(w, f"{name}.time_conv", rest).chunk(2, dim=1)
        x = torch.cat([first, torch.stack([even, odd], dim=3).flatten(2, 3)], dim=2)
    conv = w[f"{name}.resample.1.weight"], w[f"{name}.resample.1.bias"]
    return by_frame(lambda f: F.conv2d(f.repeat_interleave(2, 2).repeat_interleave(2, 3), *conv, padding=1), x)


def layers(w, prefix):
    """Names of the numbered layers under a prefix, in order, with the function that runs each."""
    numbers = sorted({int(key[len(prefix) + 1 :].split(".")[0]) for key in w if key.startswith(f"{prefix}.")})
    for n in numbers:
        name = f"{prefix}.{n}"
        if f"{name}.to_qkv.weight" in w:
            yield name, attention
        elif f"{name}.resample.1.weight" in w:
            yield name, up if prefix.startswith("decoder") else down
        else:
            yield name, residual


def run(w, part, stack, x):
    x = conv3d(w, f"{part}.conv1", x)
    for name, layer in [item for group in stack for item in layers(w, f"{part}.{group}")]:
        x = layer(w, name, x)
    return conv3d(w, f"{part}.head.2", F.silu(norm(w, f"{part}.head.0", x)))


def decode(w, latents):
    """Raw latents [B, 16, T, H, W] to pixels [B, 3, 1 + 4 (T - 1), 8H, 8W]."""
    return run(w, "decoder", ("middle", "upsamples"), conv3d(w, "conv2", latents))


def encode(w, pixels):
    """Pixels [B, 3, 1 + 4n, 8H, 8W] to the mean of the raw latents [B, 16, 1 + n, H, W]."""
    return conv3d(w, "conv1", run(w, "encoder", ("downsamples", "middle"), pixels)).chunk(2, dim=1)[0]
