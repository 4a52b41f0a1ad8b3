"""`python -m bench.tune_batching`: its choices, and that servers accept its file."""

from __future__ import annotations

import contextlib
import sys

import pytest
from google.protobuf import text_format

from bench import tune_batching
from bench.tune_batching import Parameters, largest_harmless, main, smallest_near
from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters
from featurewire_server.batching.config import BatchingConfig
from tests.support.models import write_tiny_model


def test_the_smallest_value_that_is_nearly_as_good_is_chosen():
    assert smallest_near({4: 70.0, 8: 97.5, 16: 100.0, 32: 99.0}) == 8
    assert largest_harmless({0: 10.2, 500: 10.0, 2000: 10.4, 5000: 14.0}) == 2000


@pytest.mark.parametrize("batch", [8, 64])
def test_what_is_written_takes_warm_up_records_of_any_size(batch):
    text = Parameters(batch=batch, largest=32).text()
    config = BatchingConfig.from_proto(text_format.Parse(text, BatchingParameters()))
    assert config.max_batch_size >= 32
    assert config.execution_size == config.allowed_sizes[-1] == batch


@pytest.mark.slow
def test_a_server_is_tuned_and_the_file_written(tmp_path, capsys, monkeypatch):
    write_tiny_model(tmp_path / "model", 1)
    output = tmp_path / "batching.config"
    options = ["--base-path", str(tmp_path / "model"), "--output", str(output)]
    command = [sys.executable, "-m", "featurewire_server"]
    started = tune_batching.server(command, tmp_path / "model", Parameters(batch=2, largest=2))
    with started as target:  # one server for all measurements, because a start takes seconds
        monkeypatch.setattr(tune_batching, "server", lambda *_: contextlib.nullcontext(target))
        assert main([*options, "--sizes", "2", "--seconds", "0.2"]) == 0
    assert "images/s" in capsys.readouterr().out
    config = text_format.Parse(output.read_text(), BatchingParameters())
    assert config.max_batch_size.value == 2
