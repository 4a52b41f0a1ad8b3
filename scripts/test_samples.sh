#!/usr/bin/env bash
# Run mypy and the tests of samples/ in a separate environment, because their packages conflict with
# the project's. If they cannot be installed, say so and succeed. With --install as the first argument,
# only make the environment.
set -euo pipefail
install_only=
if [ "$1" = --install ]; then
    install_only=yes
    shift
fi
python=$1
venv=.venv-samples
requirements=samples/requirements-test.txt

current() {
    [ -e "$venv/.installed" ] || return
    for file in samples/*.txt samples/*/*.txt client/pyproject.toml; do
        [ ! "$file" -nt "$venv/.installed" ] || return
    done
}

if ! current; then
    echo "Creating $venv (Ray, Beam, LanceDB, FAISS; a minute)"
    "$python" -m venv --clear "$venv"
    if ! timeout 300 "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
        -e ./client -r "$requirements" >"$venv/log" 2>&1; then
        echo "test-samples: skipped, because $requirements cannot be installed here:"
        tail -3 "$venv/log"
        exit 0
    fi
    touch "$venv/.installed"
fi
[ -z "$install_only" ] || exit 0
# Beam is only partly typed.
MYPYPATH=samples/visual_search:samples/bulk:samples/reindex "$venv/bin/mypy" \
    --allow-untyped-calls samples/visual_search/visual_search samples/bulk samples/reindex
# We cannot fix warnings of Ray, Beam and the indexes.
exec "$venv/bin/python" -m pytest -W default tests/samples
