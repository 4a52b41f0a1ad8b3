"""Requests in one batch are independent: a bad image fails alone."""

from __future__ import annotations

import numpy as np
import pytest

from featurewire._tfs.predict_pb2 import PredictResponse
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.engines.engine import endless
from featurewire_server.engines.load import load_engine
from featurewire_server.messages import tensors
from featurewire_server.models import loading
from tests.server.support import PREDICTION, config, model, predict_request, served, spec

BAD = [b"", b"no image", b"\xff\xd8\xff\xe0 cut short"]


@pytest.mark.slow
def test_bad_images_of_others_do_not_matter_in_a_merged_batch(
    split_base_path, photos, monkeypatch
) -> None:
    good = [photo.read_bytes() for photo in photos[:3]]
    requests = [image for pair in zip(good, BAD, strict=True) for image in pair]
    # Batches wait for six rows, far longer than the arrival of six requests takes.
    batching = BatchingConfig(max_batch_size=6, timeout=10.0, allowed_sizes=(1, 2, 6))
    sizes: list[int] = []

    def load_recorded(*args, **options):
        engine = load_engine(*args, **options)
        inner = engine.run

        def run(signature_name, inputs, outputs, patience=endless):
            sizes.append(len(inputs["image_bytes"]))
            return inner(signature_name, inputs, outputs, patience)

        engine.run = run
        return engine

    monkeypatch.setattr(loading, "load_engine", load_recorded)
    with served(config(model("m", split_base_path)), batching=batching) as made:
        alone = made.embed(spec("m"), good + good)
        sizes.clear()
        calls = [
            made.start(
                PREDICTION + "Predict",
                predict_request(spec("m"), image_bytes=[image]),
                PredictResponse,
            )
            for image in requests
        ]
        replies = [call.result() for call in calls]
    assert sizes == [6]
    rows = [tensors.decode("features", reply.outputs["features"])[0] for reply in replies]
    status = [int(tensors.decode("status", reply.outputs["status"])[0]) for reply in replies]
    assert status == [0, 1, 0, 2, 0, 4]
    np.testing.assert_allclose(np.stack(rows[::2]), alone[:3], atol=1e-5)
    assert np.isnan(np.stack(rows[1::2])).all()
