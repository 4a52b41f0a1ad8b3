#!/bin/sh
# Write requirements.txt from requirements.in: one version of each package for all supported Pythons
# and systems, with the hashes of its files. Keeps the versions in the file unless UPGRADE is set.
# Usage: lock.sh UV
set -eu
cd "$(dirname "$0")/.."
"$1" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-package featurewire --no-emit-package featurewire-exporter \
    --no-emit-package featurewire-rollout --no-emit-package featurewire-server \
    --custom-compile-command "make lock" ${UPGRADE:+--upgrade} \
    --output-file requirements.txt requirements.in
