#!/bin/sh
# Write a CycloneDX bill of materials of each image's Python packages into dist/, from requirements.txt.
# Usage: sbom.sh BIN, the folder with python and cyclonedx-py
set -eu
cd "$(dirname "$0")/.."
mkdir -p dist
write() {
    image=$1
    shift
    "$bin/python" scripts/locked.py "$@" |
        "$bin/cyclonedx-py" requirements --output-reproducible --of JSON \
            --output-file "dist/featurewire-$image.cdx.json" -
}
bin=$1
write server client server openvino pillow simplejpeg
write server-tensorflow client server openvino pillow simplejpeg tensorflow
write exporter client exporter
write rollout client rollout kubernetes pillow
