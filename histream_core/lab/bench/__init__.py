"""The cost of the engine, counted on any machine and measured on a GPU: `histream bench`.

A bar is a figure with a limit. On a CPU only counts and ratios are compared with limits; seconds are measured on a GPU.
Every bar has a control, a naive variant that must miss the limit, so that a bar that measures nothing cannot pass.
"""
