"""What the engine costs, counted on any machine and measured where there is a GPU: `histream bench`.

Counters and ratios only are held against limits on a CPU; seconds belong to a GPU. Every bar has its control: a naive
variant that must fail it, so that a bar that measures nothing cannot pass. Needs torch, numpy, einops, safetensors.
"""
