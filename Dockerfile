# Five images: `--target server`, `server-tensorflow`, `exporter`, `rollout` and `search`.
#
# `server` serves exported versions and has no TensorFlow; `server-tensorflow` serves any SavedModel.
# Packages from the index are in layers below the sources, so that a change of code downloads nothing.
# Images with TensorFlow share its layer. Needs BuildKit.
#
# Another base image: --build-arg PYTHON_IMAGE=…. A private index or authority:
#   --build-arg PIP_INDEX_URL=https://…              an index without a password
#   --secret id=pip_conf,src=pip.conf                pip's settings, including passwords
#   --secret id=ca_bundle,src=ca.pem                 trusted authorities, PEM
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS python
ENV PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
RUN useradd --uid 1000 --create-home featurewire \
 && install -d -o featurewire -g featurewire /models /cache /index

# pip with the index from secrets and arguments; empty ones are ignored.
FROM python AS index
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CACHE_DIR=/var/cache/pip \
    PIP_CONFIG_FILE=/run/secrets/pip_conf
COPY scripts/image_pip.sh /usr/local/bin/image-pip

# The requirements of each image, with hashes: parts of requirements.txt.
FROM python AS requirements
WORKDIR /sources
COPY requirements.txt ./
COPY scripts/locked.py ./scripts/
RUN mkdir /requirements \
 && python scripts/locked.py hatchling > /requirements/build.txt \
 && python scripts/locked.py client tensorflow > /requirements/common.txt \
 && python scripts/locked.py client exporter > /requirements/exporter.txt \
 && python scripts/locked.py client server openvino pillow simplejpeg > /requirements/server.txt \
 && python scripts/locked.py client rollout kubernetes pillow > /requirements/rollout.txt \
 && python scripts/locked.py client > /requirements/client.txt

FROM index AS wheels
# Resizing is compiled if there is a compiler. Where no Debian mirror is reachable, the image is built
# without, and numpy resizes, in ten to twenty times as much time.
# hadolint ignore=DL3008
RUN command -v cc || { apt-get update && apt-get install --yes --no-install-recommends gcc \
    && rm -rf /var/lib/apt/lists/*; } || echo "no C compiler: resizing will be slower"
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    image-pip install --require-hashes --no-deps -r /requirements/build.txt
WORKDIR /src
COPY client ./client
COPY rollout ./rollout
COPY exporter ./exporter
COPY server ./server
RUN image-pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels \
    ./client ./rollout ./exporter ./server

# Without headers and libclang, which are needed only to compile operations.
FROM index AS tensorflow
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    image-pip install --require-hashes --no-deps -r /requirements/common.txt \
 && packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && rm -r "$packages/tensorflow/include" "$packages/clang"

FROM tensorflow AS exporter
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    image-pip install --require-hashes --no-deps -r /requirements/exporter.txt
COPY scripts/stack_exporter.py /usr/local/bin/stack-exporter
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    image-pip install --no-deps --no-index /wheels/featurewire-*.whl /wheels/featurewire_exporter-*.whl
ENV TFHUB_CACHE_DIR=/cache
USER 1000:1000
ENTRYPOINT ["stack-exporter"]
CMD ["ensure"]

FROM index AS server
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    image-pip install --require-hashes --no-deps -r /requirements/server.txt
COPY server/tensorflow_model_server /usr/bin/tensorflow_model_server
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    image-pip install --no-deps --no-index /wheels/featurewire-*.whl /wheels/featurewire_server-*.whl
USER 1000:1000
EXPOSE 8500 8501
ENTRYPOINT ["featurewire", "serve"]
CMD ["--help"]

FROM tensorflow AS server-tensorflow
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    image-pip install --require-hashes --no-deps -r /requirements/server.txt
COPY server/tensorflow_model_server /usr/bin/tensorflow_model_server
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    image-pip install --no-deps --no-index /wheels/featurewire-*.whl /wheels/featurewire_server-*.whl
USER 1000:1000
EXPOSE 8500 8501
ENTRYPOINT ["featurewire", "serve"]
CMD ["--help"]

FROM index AS rollout
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    image-pip install --require-hashes --no-deps -r /requirements/rollout.txt
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    image-pip install --no-deps --no-index /wheels/featurewire-*.whl /wheels/featurewire_rollout-*.whl
USER 1000:1000
ENTRYPOINT ["featurewire"]
CMD ["--help"]

# samples/visual_search, with its own requirements file.
FROM index AS search
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    --mount=type=bind,source=samples/visual_search/requirements.txt,target=/search.txt \
    image-pip install --require-hashes --no-deps -r /requirements/client.txt \
 && image-pip install -r /search.txt
WORKDIR /app
COPY samples/visual_search/visual_search ./visual_search
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    image-pip install --no-deps --no-index /wheels/featurewire-*.whl
USER 1000:1000
EXPOSE 8600
ENTRYPOINT ["python", "-m", "visual_search"]
CMD ["--help"]
