#!/usr/bin/env bash
# Run the client on Linux for aarch64, emulated: Debian's Python and libraries for arm64, unpacked into
# build/aarch64 and run by qemu-user. Nothing is installed on this machine. Skipped where apt-get or
# one of the packages is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/.venv-release/bin
work=$PWD/build/aarch64
python=$work/sysroot/usr/bin/python3.11
libraries="libc6 libgcc-s1 libstdc++6 zlib1g libssl3 libffi8 libexpat1 liblzma5 libbz2-1.0 libuuid1
    libcrypt1 libsqlite3-0"

skip() {
    echo "test-aarch64: SKIPPED: $1"
    exit 0
}

# Debian's packages, without root's rights and without changing apt's own lists.
unpack() {
    mkdir -p state/lists/partial cache/archives/partial
    touch state/status
    local arm=(-o "Dir::State=$PWD/state" -o "Dir::State::status=$PWD/state/status"
        -o "Dir::Cache=$PWD/cache" -o APT::Architecture=arm64 -o APT::Architectures::=arm64)
    apt-get -qq "${arm[@]}" update
    # shellcheck disable=SC2086
    apt-get -qq "${arm[@]}" download python3.11-minimal libpython3.11-stdlib libpython3.11-minimal $libraries
    apt-get -qq download qemu-user-static
    for package in *_arm64.deb; do dpkg -x "$package" sysroot; done
    dpkg -x qemu-user-static_*.deb qemu
}

if [ ! -x "$python" ]; then
    command -v apt-get >/dev/null || skip "no apt-get"
    mkdir -p "$work"
    (cd "$work" && unpack >log 2>&1) || skip "Debian's packages cannot be had: $(tail -1 "$work/log")"
fi
rm -rf "$work/site"
"$tools/python" scripts/locked.py client rollout >"$work/requirements.txt"
install=("$tools/uv" pip install --quiet --no-deps --target "$work/site")
"${install[@]}" --python-platform aarch64-manylinux_2_28 --python-version 3.11 --only-binary :all: \
    --require-hashes -r "$work/requirements.txt"
"${install[@]}" dist/featurewire-*.whl dist/featurewire_rollout-*.whl
emulated=("$work"/qemu/usr/bin/qemu-aarch64-static -L "$work/sysroot" "$python")
export PYTHONPATH=$work/site
"${emulated[@]}" -c 'import platform; print("test-aarch64:", platform.machine(), platform.python_version())'
"${emulated[@]}" tests/client/smoke.py
"${emulated[@]}" -c 'from featurewire._cli.main import run; run()' --version
echo "test-aarch64: passed"
