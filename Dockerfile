# Two images from one file: `--target exporter` and `--target server`.
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 TF_CPP_MIN_LOG_LEVEL=2
WORKDIR /src
COPY constraints.txt ./
COPY client ./client
RUN useradd --uid 1000 --create-home featurewire \
 && install -d -o featurewire -g featurewire /models

FROM base AS exporter
COPY exporter ./exporter
RUN pip install --constraint constraints.txt ./client ./exporter
USER 1000
ENTRYPOINT ["featurewire", "export"]
CMD ["--help"]

FROM base AS server
COPY server ./server
RUN pip install --constraint constraints.txt ./client "./server[openvino]" \
 && install -m 755 server/tensorflow_model_server /usr/bin/
USER 1000
EXPOSE 8500 8501
ENTRYPOINT ["featurewire", "serve"]
CMD ["--help"]
