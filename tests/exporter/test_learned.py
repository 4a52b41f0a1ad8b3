"""The learned modules recognise photos, so tests with them are meaningful."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import tensorflow as tf

from tests.support.torch_file import read_state_dict

EGYPTIAN_CAT, ESPRESSO = 285, 967  # indices in ImageNet's 1000 classes


@pytest.mark.parametrize(
    ("fixture", "size"), [("learned_module", 224), ("other_learned_module", 240)]
)
@pytest.mark.slow
def test_the_learned_modules_name_the_cat_and_the_espresso(request, photos, fixture, size):
    module = tf.saved_model.load(str(request.getfixturevalue(fixture)))
    named = {}
    for path in photos:
        pixels = tf.io.decode_jpeg(path.read_bytes(), channels=3)[tf.newaxis] / 255
        images = tf.image.resize(pixels, [size, size], antialias=True)
        named[path.stem] = int(tf.argmax(module.classify(images)[0]))

    assert module(images).shape == (1, 1280)
    assert (named["cat"], named["coffee"]) == (EGYPTIAN_CAT, ESPRESSO)


def test_a_weight_file_that_would_run_something_is_refused(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return print, ("ran",)

    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(pickle.UnpicklingError, match=r"wants builtins\.print"):
        read_state_dict(path)
