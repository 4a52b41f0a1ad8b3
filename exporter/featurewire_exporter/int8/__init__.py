"""A quantised network beside the float one: 8-bit integers for servers that run OpenVINO.

`pictures` splits pictures for calibration and for the gate, `quantise` tries settings, `gate` says
what search loses, and `make` takes the first setting that the gate lets through.
"""
