"""An additional network in 8-bit integers, for servers that run OpenVINO.

`pictures` splits pictures for calibration and for the gate, `openvino_network` computes networks,
`rounding` rounds weights, `quantise` quantises by a setting, `gate` says what search loses, and
`make` takes the first setting that the gate lets through.
"""

import sys

# NNCF and OpenVINO report each use to a statistics host through it, and work without it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
