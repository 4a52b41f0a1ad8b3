#!/usr/bin/env bash
# Check the files that `make dist` makes: built twice they are the same bytes, a package index would
# take them, and on each Python given (3.11 3.12 …) they work in an empty environment: the client
# against a server with faults, and on the first Python all four with a served model.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/find_python.sh
tools=$PWD/.venv-release/bin
work=$PWD/build/test-dist
export TF_CPP_MIN_LOG_LEVEL=2 UV_PYTHON_DOWNLOADS=never
rm -rf "$work"
mkdir -p "$work"

scripts/dist.sh "$tools/python" "$work/again"
diff <(cd dist && sha256sum *.whl *.tar.gz) <(cd "$work/again" && sha256sum *.whl *.tar.gz)
echo "test-dist: two builds are the same bytes"
"$tools/twine" --no-color check --strict dist/*.whl dist/*.tar.gz | sed 's/^/test-dist: /'

free_port() { "$tools/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

serve_and_embed() {
    local bin=$1 port server
    port=$(free_port)
    "$bin/featurewire" serve --port="$port" --model_name=m --model_base_path="$work/model" \
        >"$work/serve.log" 2>&1 &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT
    "$bin/featurewire" embed samples/photos --server "localhost:$port" --model m --wait 300 \
        --output "$work/vectors.npy" || { cat "$work/serve.log"; return 1; }
    "$bin/featurewire" status --server "localhost:$port" --model m
    kill "$server"
    wait "$server"
    trap - EXIT
}

for version in "$@"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "test-dist: SKIPPED Python $version: no such interpreter here"
        continue
    fi
    env=$work/$version
    echo "test-dist: Python $version"
    "$tools/uv" venv --quiet --python "$python" "$env"
    install=("$tools/uv" pip install --quiet --python "$env/bin/python" --no-deps)
    "$tools/python" scripts/locked.py client exporter rollout server >"$work/requirements.txt"
    "${install[@]}" --require-hashes -r "$work/requirements.txt"
    "${install[@]}" dist/*.whl
    "$tools/uv" pip check --quiet --python "$env/bin/python"
    "$env/bin/featurewire" --version
    "$env/bin/python" tests/client/smoke.py
    # Once, because TensorFlow's first start costs most of the time; test-pythons serves on the others.
    if [ ! -e "$work/model" ]; then
        "$env/bin/python" -c "
import pathlib, sys
sys.path.insert(0, '.')
from tests.support.models import write_tiny_model
write_tiny_model(pathlib.Path('$work/model'), 1)"
        serve_and_embed "$env/bin"
    fi
done
rm -rf "$work"
echo "test-dist: passed"
