"""LitServe: `python -m bench.servers.litserve_server PORT`; POST /predict.

Images arrive in JSON as base64, because LitServe's queue between processes cannot pass files of a
form. Vectors leave as bytes.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve
from fastapi import Response

from bench.servers.embedder import BATCH, WAIT, Embedder


class Api(litserve.LitAPI):
    """Requests are merged into batches by LitServe."""

    def setup(self, device: str) -> None:
        self._embedder = Embedder()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image_bytes"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, images: list[bytes]) -> Any:
        return self._embedder(images)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, timeout=False, fast_queue=True
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
