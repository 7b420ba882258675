"""One stream on several devices: ranks that compute a layer together, or some layers each, and a rank that decodes.

The first rank is the process that makes the video. The others do as they are told, call by call; tensors travel by
torch.distributed alone.
"""
