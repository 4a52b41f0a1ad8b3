#!/bin/sh
# Build a wheel and a source distribution of each distribution into a folder (dist). The files depend
# only on the sources and on the time of the newest commit. Usage: dist.sh PYTHON [FOLDER]
set -eu
cd "$(dirname "$0")/.."
python=$1
folder=${2:-dist}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 315532800)
export SOURCE_DATE_EPOCH
umask 022
mkdir -p "$folder"
rm -f "$folder"/*.whl "$folder"/*.tar.gz
for each in client exporter rollout server; do
    "$python" -m build --no-isolation --outdir "$folder" "$each" >"$folder/build.log" 2>&1 ||
        { cat "$folder/build.log" >&2; exit 1; }
done
rm "$folder/build.log"
