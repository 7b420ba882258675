"""Files that exist whole or not at all, with bytes that follow from their content; knows no model and no video.

`disk`: atomic writes, and checks of a folder before a long run. `tensors`: safetensors files.
"""
