"""Files: read from anywhere without harm, and written whole or not at all; knows no model and no video.

`reading`: ordinary files of a bounded size. `disk`: atomic writes that follow no link, and checks of a folder before a
long run. `tensors`: safetensors files with reproducible bytes.
"""
