#!/usr/bin/env bash
# Run the fast tests of client, command and server on each given Python (test_pythons.sh 3.12 3.13),
# and report the Pythons that are not installed. With --install as the first argument, only make the
# environments.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/find_python.sh

install_only=
if [ "${1:-}" = --install ]; then
  install_only=yes
  shift
fi
for version in "$@"; do
  python=$(find_python "$version")
  if [ -z "$python" ]; then
    echo "test-pythons: SKIPPED Python $version: not installed"
    continue
  fi
  venv=.venv-$version
  if [ ! -e "$venv/.installed" ] || [ requirements.txt -nt "$venv/.installed" ]; then
    echo "test-pythons: installing for Python $version"
    "$python" -m venv "$venv"
    pip=("$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps)
    "${pip[@]}" --require-hashes -r requirements.txt
    "${pip[@]}" --no-build-isolation -e ./client -e ./exporter -e ./server -e ./rollout
    touch "$venv/.installed"
  fi
  if [ -z "$install_only" ]; then
    echo "test-pythons: Python $version"
    # Newer Pythons deprecate features that our dependencies use.
    "$venv/bin/python" -m pytest -W default -q -n 3 --dist worksteal --max-worker-restart 0 \
      -m "not slow" tests/client tests/cli tests/server
  fi
done
