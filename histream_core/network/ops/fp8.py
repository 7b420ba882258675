"""The 8-bit floating-point format of products and caches: 3 bits behind the first, as GPUs multiply it."""

import torch

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
