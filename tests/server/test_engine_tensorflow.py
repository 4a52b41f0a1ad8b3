"""Any SavedModel runs like in TensorFlow Serving: TF1 and TF2, tables, assets, all dtypes."""

from __future__ import annotations

import threading
from concurrent import futures
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from featurewire_server.common.errors import ServingError
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.load import load_engine
from featurewire_server.engines.tensorflow import TensorFlowEngine, session_config
from tests.support.models import expected_vector, write_tiny_model

JPEG = b"\xff\xd8\xff\x00"


def load(path: Path, **options) -> TensorFlowEngine:
    return TensorFlowEngine(path, EngineConfig(engine="tensorflow", **options))


def strings(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def write_tf1_model(path: Path, *, tags=("serve",)) -> Path:
    """A TF1 SavedModel with a variable, a vocabulary asset, and a table filled by an init op."""
    v1 = tf.compat.v1
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = path.parent / "words.txt"
    vocabulary.write_text("cat\ndog\n")
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        asset = tf.constant(str(vocabulary))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                asset,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )
        offset = v1.get_variable("offset", initializer=tf.constant(10, tf.int64), use_resource=True)
        ids = tf.add(table.lookup(words), offset, name="ids")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(path))
        signature = v1.saved_model.predict_signature_def({"words": words}, {"ids": ids})
        builder.add_meta_graph_and_variables(
            session,
            list(tags),
            signature_def_map={"serving_default": signature, "another": signature},
            main_op=v1.tables_initializer(),
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()
    vocabulary.unlink()
    return path


def test_a_tf1_model_runs_with_its_variables_tables_and_assets(tmp_path: Path) -> None:
    engine = load(write_tf1_model(tmp_path / "1"))
    assert set(engine.signatures) == {"serving_default", "another"}
    found = engine.run("serving_default", {"words": strings(b"dog", b"bird", b"cat")}, ["ids"])
    assert found["ids"].tolist() == [11, 9, 10]
    engine.close()


def test_other_tags_are_loaded_when_asked_for(tmp_path: Path) -> None:
    path = write_tf1_model(tmp_path / "1", tags=("serve", "gpu"))
    assert load(path, tags=("gpu", "serve")).signatures
    with pytest.raises(ServingError) as caught:
        load(path)
    assert "'serve'" in caught.value.message
    assert str(path) in caught.value.message


def test_a_tf2_model_lists_the_signatures_that_upstream_lists(tmp_path: Path) -> None:
    engine = load(write_tiny_model(tmp_path, 3))
    assert set(engine.signatures) == {"serving_default", "manifest", "__saved_model_init_op"}
    found = engine.run("serving_default", {"image_bytes": strings(JPEG)}, ["status", "features"])
    assert list(found) == ["status", "features"]
    np.testing.assert_array_equal(found["features"][0], expected_vector(JPEG, version=3))


def test_several_inputs_and_every_common_dtype_pass(tmp_path: Path) -> None:
    module = tf.Module()
    dtypes = [tf.float32, tf.float64, tf.int32, tf.int64, tf.uint8, tf.bool, tf.float16]
    dtypes += [tf.bfloat16, tf.complex64, tf.string, tf.uint64, tf.int8]
    names = [f"x_{dtype.name}" for dtype in dtypes]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], dtype, name=name)
            for dtype, name in zip(dtypes, names, strict=True)
        ]
    )
    def serve(*values):
        return {name: tf.identity(v) for name, v in zip(names, values, strict=True)}

    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": serve})
    engine = load(tmp_path / "1")
    assert set(engine.signatures["serving_default"].inputs) == set(names)
    inputs = {}
    for dtype, name in zip(dtypes, names, strict=True):
        numpy_type = ml_dtypes.bfloat16 if dtype == tf.bfloat16 else dtype.as_numpy_dtype
        values = strings(b"a", b"") if dtype == tf.string else np.array([1, 0], numpy_type)
        inputs[name] = values
    found = engine.run("serving_default", inputs, names)
    for name in names:
        assert found[name].tolist() == inputs[name].tolist(), name


def test_what_the_graph_refuses_keeps_its_code_and_loses_its_stack(tmp_path: Path) -> None:
    engine = load(write_tiny_model(tmp_path, 1, fails_on_bad_image=True))
    with pytest.raises(ServingError) as caught:
        engine.run("serving_default", {"image_bytes": strings(b"text")}, ["features"])
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert "bad image" in caught.value.message
    assert "Original stack trace" not in caught.value.message


def test_threads_share_an_engine(tmp_path: Path) -> None:
    engine = load(write_tiny_model(tmp_path, 1))
    start = threading.Barrier(8)

    def one(number: int) -> bool:
        image = JPEG + bytes([number])
        start.wait(60)
        outputs = ["features"] if number % 2 else ["features", "status"]
        found = engine.run("serving_default", {"image_bytes": strings(image)}, outputs)
        return np.array_equal(found["features"][0], expected_vector(image))

    with futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(8)))


@pytest.mark.parametrize(
    "damage",
    ["no directory", "empty", "no graph", "cut graph", "garbage graph", "no variables"],
)
def test_a_half_written_version_fails_with_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "1"
    if damage == "empty":
        path.mkdir()
    elif damage != "no directory":
        write_tiny_model(tmp_path, 1)
        graph = path / "saved_model.pb"
        if damage == "no graph":
            graph.unlink()
        elif damage == "cut graph":
            graph.write_bytes(graph.read_bytes()[:-100])
        elif damage == "garbage graph":
            graph.write_bytes(b"\xff garbage")
        else:
            for file in (path / "variables").iterdir():
                file.unlink()
    with pytest.raises(ServingError) as caught:
        load_engine(path, EngineConfig(engine="tensorflow"))
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message.strip()


def test_the_session_config_and_mixed_precision_reach_the_session() -> None:
    given = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=3, inter_op_parallelism_threads=4
    ).SerializeToString()
    made = session_config(
        EngineConfig(session_config=given, inter_op_threads=5, mixed_precision="bfloat16")
    )
    assert made.intra_op_parallelism_threads == 3
    assert made.inter_op_parallelism_threads == 5
    rewriter = made.graph_options.rewrite_options
    assert rewriter.auto_mixed_precision_onednn_bfloat16 == rewriter.ON
