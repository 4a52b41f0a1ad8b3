"""The published SavedModel in a TF1 Session, as in TensorFlow Serving."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from featurewire_exporter import photos
from featurewire_exporter.commands import export, verify
from featurewire_exporter.source.module import load_module
from featurewire_exporter.version.artifact import ArtifactSession
from tests.exporter.modules import DIMENSION, SIZE


def strings(*images: bytes) -> np.ndarray:
    return np.array(images, dtype=object)


@pytest.fixture(scope="module")
def session(tiny_version):
    with ArtifactSession(tiny_version) as session:
        yield session


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    return [photos.jpeg(60, 80, seed=i) for i in range(3)]


def test_a_version_holds_the_files_of_the_contract(tiny_version):
    assert sorted(str(p.relative_to(tiny_version)) for p in tiny_version.rglob("*")) == [
        "assets.extra",
        "assets.extra/featurewire.json",
        "assets.extra/network.pb",
        "assets.extra/tf_serving_warmup_requests",
        "batching_params.pbtxt",
        "saved_model.pb",
        "variables",
    ]


def test_there_is_one_graph_for_serving_with_four_signatures(tiny_version):
    content = (tiny_version / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs

    assert list(meta.meta_info_def.tags) == ["serve"]
    signatures = {
        name: [
            {
                key: (info.dtype, [dim.size for dim in info.tensor_shape.dim])
                for key, info in side.items()
            }
            for side in (signature.inputs, signature.outputs)
        ]
        for name, signature in meta.signature_def.items()
    }
    string, floats, integers = tf.string.as_datatype_enum, tf.float32.as_datatype_enum, 3
    images = {"images": (floats, [-1, *SIZE, 3])}
    image_bytes = {"image_bytes": (string, [-1])}
    status = {"status": (integers, [-1])}
    assert signatures == {
        "serving_default": [image_bytes, {"features": (floats, [-1, DIMENSION]), **status}],
        "preprocess": [image_bytes, {**images, **status}],
        "image_feature_vector": [images, {"default": (floats, [-1, DIMENSION])}],
        "manifest": [{"request": (string, [-1])}, {"manifest": (string, [-1])}],
    }
    assert {s.method_name for s in meta.signature_def.values()} == {"tensorflow/serving/predict"}


def test_weights_are_constants_and_the_network_is_there_once(tiny_version):
    content = (tiny_version / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    ops = Counter(node.op for node in meta.graph_def.node)

    assert ops["Conv2D"] == 2
    assert not {"VarHandleOp", "VariableV2", "ReadVariableOp"} & set(ops)


def test_decoding_stays_on_the_cpu(tiny_version):
    content = (tiny_version / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    network = {node.device for node in meta.graph_def.node if node.name.startswith("network/")}

    assert network == {""}
    outside = [
        node.name
        for node in meta.graph_def.node
        if not node.name.startswith("network/") and "CPU:0" not in node.device
    ]
    assert {name.split("/")[0] for name in outside} <= {"EnsureShape", "ensure_shape"}


def test_features_are_the_module_on_the_preprocessed_pixels(session, tf2_module, good):
    served, pixels = session.run_together(
        ["serving_default", "preprocess"], image_bytes=strings(*good)
    )

    assert served["status"].tolist() == pixels["status"].tolist() == [0, 0, 0]
    assert served["features"].dtype == np.float32
    np.testing.assert_allclose(
        served["features"], load_module(str(tf2_module))(pixels["images"]), atol=1e-4
    )
    np.testing.assert_array_equal(
        served["features"],
        session.run("image_feature_vector", images=pixels["images"])["default"],
    )


def test_a_bad_image_is_nan_and_leaves_its_batch_mates_alone(session, good):
    batch = [good[0], b"", b"just a text file", good[1][: len(good[1]) // 2], good[2]]
    result = session.run("serving_default", image_bytes=strings(*batch))

    assert result["status"].tolist() == [0, 1, 2, 4, 0]
    assert np.isnan(result["features"][[1, 2, 3]]).all()
    for row, image in ((0, good[0]), (4, good[2])):
        alone = session.run("serving_default", image_bytes=strings(image))["features"][0]
        np.testing.assert_allclose(result["features"][row], alone, atol=1e-5)


def test_a_version_describes_itself_one_row_a_request(session, tiny_version):
    rows = session.run("manifest", request=strings(b"", b"anything"))["manifest"]
    file = json.loads((tiny_version / "assets.extra" / "featurewire.json").read_text())

    assert [json.loads(row) for row in rows] == [file, file]


def test_the_manifest_says_what_the_contract_asks_for(tiny_version, tf2_module):
    manifest = json.loads((tiny_version / "assets.extra" / "featurewire.json").read_text())

    assert manifest["module"]["handle"] == str(tf2_module)
    assert manifest["module"]["stand_in"] is False
    assert manifest["dimension"] == DIMENSION
    assert manifest["image_size"] == list(SIZE)
    assert manifest["precision"] == "float32"
    assert manifest["parity"]["passed"] is True
    assert manifest["parity"]["max_abs"] <= 1e-4
    assert manifest["tensorflow_version"] == tf.__version__
    assert re.fullmatch(r"\d+\.\d+", manifest["min_serving_version"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest["created_at"])
    assert re.fullmatch(r"graph-1-[0-9a-f]{32}", manifest["vector_space"])
    assert {"resize_method", "antialias", "central_crop", "max_pixels", "max_image_bytes"} < set(
        manifest["preprocess"]
    )
    assert manifest["featurewire_version"]
    assert {name: len(digest) for name, digest in manifest["files"].items()} == {
        "assets.extra/network.pb": 64,
        "assets.extra/tf_serving_warmup_requests": 64,
        "batching_params.pbtxt": 64,
        "saved_model.pb": 64,
    }
    assert manifest["networks"] == {"image_feature_vector": "assets.extra/network.pb"}


@pytest.mark.parametrize("max_batch_size", [1, 6])
@pytest.mark.slow
def test_warm_up_holds_each_allowed_batch_size_and_a_large_photo(
    tmp_path, tf2_module, max_batch_size
):
    arguments = ["--max-batch-size", str(max_batch_size), "--max-pixels", "1000000"]
    assert export([str(tf2_module), str(tmp_path / "m"), *arguments]) == 0
    version = tmp_path / "m" / "1"

    from tensorflow_serving.apis import prediction_log_pb2

    path = version / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    requests = [log.predict_log.request for log in logs]
    sizes = [request.inputs["image_bytes"].tensor_shape.dim[0].size for request in requests]
    allowed = {1: [1], 6: [1, 2, 4, 6]}[max_batch_size]
    assert sizes == [*allowed, 1]
    with ArtifactSession(version) as session:
        for request in requests:
            assert request.model_spec.signature_name == "serving_default"
            images = tf.make_ndarray(request.inputs["image_bytes"])
            result = session.run("serving_default", image_bytes=images)
            assert not result["status"].any()
    shapes = [
        tf.io.extract_jpeg_shape(request.inputs["image_bytes"].string_val[0]).numpy()[:2]
        for request in requests
    ]
    assert shapes[-1].prod() > shapes[0].prod()
    assert max(shape.prod() for shape in shapes) <= 1000000


def test_the_large_photo_of_the_warm_up_is_12_megapixels(tiny_version):
    from tensorflow_serving.apis import prediction_log_pb2

    path = tiny_version / "assets.extra" / "tf_serving_warmup_requests"
    *_, last = tf.data.TFRecordDataset(str(path))
    request = prediction_log_pb2.PredictionLog.FromString(last.numpy()).predict_log.request
    shape = tf.io.extract_jpeg_shape(request.inputs["image_bytes"].string_val[0])
    assert shape.numpy().tolist() == [3000, 4000, 3]


def test_batching_parameters_are_what_tensorflow_serving_reads(tiny_version):
    from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters

    parameters = text_format.Parse(
        (tiny_version / "batching_params.pbtxt").read_text(), BatchingParameters()
    )
    assert list(parameters.allowed_batch_sizes) == [1, 2, 4, 8, 16, 32]
    assert parameters.max_batch_size.value == 32
    assert parameters.max_enqueued_batches.value > 0


@pytest.mark.slow
def test_exporting_twice_gives_one_vector_space_and_the_same_vectors(
    tmp_path, tf2_module, tiny_version, good
):
    assert export([str(tf2_module), str(tmp_path / "m")]) == 0
    again = json.loads((tmp_path / "m/1/assets.extra/featurewire.json").read_text())
    first = json.loads((tiny_version / "assets.extra/featurewire.json").read_text())

    assert again["vector_space"] == first["vector_space"]
    with ArtifactSession(tmp_path / "m/1") as a, ArtifactSession(tiny_version) as b:
        np.testing.assert_array_equal(
            a.run("serving_default", image_bytes=strings(*good))["features"],
            b.run("serving_default", image_bytes=strings(*good))["features"],
        )


@pytest.mark.slow
def test_every_preprocessing_setting_is_in_manifest_and_vector_space(
    tmp_path, tf2_module, tiny_version
):
    settings = "--resize-method bicubic --no-antialias --central-crop 0.875 --no-exif-orientation"
    settings += " --input-range 0,255"
    limits = "--max-pixels 1000000 --max-image-bytes 2000000 --webp"
    base = tmp_path / "m"
    assert export([str(tf2_module), str(base), *settings.split(), *limits.split()]) == 0
    manifest = json.loads((base / "1/assets.extra/featurewire.json").read_text())

    expected = {
        "resize_method": "bicubic",
        "antialias": False,
        "central_crop": 0.875,
        "exif_orientation": False,
        "input_range": [0.0, 255.0],
        "max_pixels": 1000000,
        "max_image_bytes": 2000000,
        "webp": True,
    }
    assert expected.items() <= manifest["preprocess"].items()
    first = json.loads((tiny_version / "assets.extra/featurewire.json").read_text())
    assert manifest["vector_space"] != first["vector_space"]
    assert float(manifest["min_serving_version"][2:]) > float(first["min_serving_version"][2:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "low", "high"), [("tf1_module", -1.0, 1.0), ("tf2_module", 0.0, 255.0)]
)
def test_a_module_gets_the_range_of_numbers_that_it_expects(
    request, tmp_path, good, fixture, low, high
):
    module = str(request.getfixturevalue(fixture))
    assert export([module, str(tmp_path / "m"), f"--input-range={low},{high}"]) == 0
    with ArtifactSession(tmp_path / "m/1") as session:
        pixels = session.run("preprocess", image_bytes=strings(*good))["images"]
        served = session.run("serving_default", image_bytes=strings(*good))["features"]
        fed = session.run("image_feature_vector", images=pixels)["default"]
    assert pixels.max() <= 1
    expected = load_module(module)(pixels * np.float32(high - low) + np.float32(low))
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fed, served, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_verify_uses_the_signature_and_range_of_the_version(tmp_path, tf1_module):
    options = ["--signature", "default", "--input-range", "0,255"]
    assert export([str(tf1_module), str(tmp_path / "m"), *options]) == 0
    manifest = json.loads((tmp_path / "m/1/assets.extra/featurewire.json").read_text())
    assert manifest["module"]["signature"] == "default"
    assert verify([str(tmp_path / "m/1"), "--module", str(tf1_module)]) == 0


@pytest.mark.slow
def test_other_weights_are_another_vector_space(tmp_path, tiny_version):
    from tests.exporter.modules import write_tf2_module

    tuned = write_tf2_module(tmp_path / "tuned", seed=2)
    assert export([str(tuned), str(tmp_path / "m")]) == 0
    manifest = json.loads((tmp_path / "m/1/assets.extra/featurewire.json").read_text())
    first = json.loads((tiny_version / "assets.extra/featurewire.json").read_text())

    assert manifest["vector_space"] != first["vector_space"]


@pytest.mark.slow
def test_a_tf1_hub_module_is_served_in_its_inference_variant(tmp_path, tf1_module, good):
    assert export([str(tf1_module), str(tmp_path / "m")]) == 0
    with ArtifactSession(tmp_path / "m/1") as session:
        together = session.run("serving_default", image_bytes=strings(*good))["features"]
        alone = session.run("serving_default", image_bytes=strings(good[1]))["features"][0]
        pixels = session.run("preprocess", image_bytes=strings(*good))["images"]
    np.testing.assert_allclose(together[1], alone, atol=1e-5)
    loaded = tf.saved_model.load(str(tf1_module), tags=[])
    expected = loaded.signatures["default"](tf.constant(pixels))["default"]
    np.testing.assert_allclose(together, expected, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.slow
def test_a_reduced_precision_stays_near_and_in_the_same_vector_space(
    tmp_path, tf2_module, tiny_version, good, precision
):
    assert export([str(tf2_module), str(tmp_path / "m"), "--precision", precision]) == 0
    manifest = json.loads((tmp_path / "m/1/assets.extra/featurewire.json").read_text())
    first = json.loads((tiny_version / "assets.extra/featurewire.json").read_text())

    assert manifest["precision"] == precision
    assert 0.999 <= manifest["parity"]["min_cosine"] < 1
    assert manifest["vector_space"] == first["vector_space"]
    with ArtifactSession(tmp_path / "m/1") as low, ArtifactSession(tiny_version) as full:
        a = low.run("serving_default", image_bytes=strings(*good))["features"]
        b = full.run("serving_default", image_bytes=strings(*good))["features"]
    assert a.dtype == np.float32
    assert not np.array_equal(a, b)
    content = (tmp_path / "m/1/saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    types = {n.attr["T"].type for n in meta.graph_def.node if n.op in ("Conv2D", "BiasAdd")}
    assert types == {tf.as_dtype(precision).as_datatype_enum}


def test_the_learned_module_exports_at_its_own_size_and_dimension(
    tmp_path, photos_jpeg, learned_module
):
    assert export([str(learned_module), str(tmp_path / "m")]) == 0
    with ArtifactSession(tmp_path / "m/1") as session:
        result = session.run("serving_default", image_bytes=strings(*photos_jpeg))
        pixels = session.run("preprocess", image_bytes=strings(*photos_jpeg))["images"]

    assert result["features"].shape == (len(photos_jpeg), 1280)
    assert pixels.shape[1:] == (224, 224, 3)
    expected = tf.saved_model.load(str(learned_module))(pixels)
    np.testing.assert_allclose(result["features"], expected, atol=1e-4)


def test_a_network_hurt_by_bfloat16_keeps_float32_activations(tmp_path, capsys, learned_module):
    """EfficientNet-Lite0 has a cosine of 0.997 if everything is cast."""
    arguments = [str(learned_module), str(tmp_path / "m"), "--precision", "bfloat16", "--json"]
    assert export(arguments) == 0
    manifest = json.loads(capsys.readouterr().out)["manifest"]

    assert (manifest["precision"], manifest["activations"]) == ("bfloat16", "float32")
    assert 0.999 <= manifest["parity"]["min_cosine"] < 0.99999


@pytest.fixture(scope="session")
def photos_jpeg(photos) -> list[bytes]:
    return [path.read_bytes() for path in photos]


@pytest.mark.slow
def test_the_stand_in_equals_hub_load_for_every_format(
    small_published, small_stand_in_module, photos_jpeg
):
    """JPEG, PNG, GIF and BMP photos, within 1e-4 on the same pixels."""
    decoded = [tf.io.decode_jpeg(photo).numpy() for photo in photos_jpeg[:4]]
    rgb = [np.repeat(d, 3, 2) if d.shape[2] == 1 else d for d in decoded]
    encoded = [photos_jpeg[0], tf.io.encode_png(rgb[1]).numpy()]
    encoded += [_pillow(rgb[2], "GIF"), _pillow(rgb[3], "BMP")]
    with ArtifactSession(small_published / "1") as session:
        result = session.run("serving_default", image_bytes=strings(*encoded))
        pixels = session.run("preprocess", image_bytes=strings(*encoded))["images"]
        alone = session.run("serving_default", image_bytes=strings(encoded[2]))["features"]

    assert result["status"].tolist() == [0, 0, 0, 0]
    module = tf.saved_model.load(str(small_stand_in_module), tags=[]).signatures["default"]
    expected = module(tf.constant(pixels))["default"].numpy()
    assert expected.shape == (4, 192)
    np.testing.assert_allclose(result["features"], expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(result["features"][2], alone[0], atol=1e-4, rtol=0)


def _pillow(rgb: np.ndarray, form: str) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.slow
def test_only_good_images_enter_the_network(tiny_version, good):
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        signatures = tf1.saved_model.load(session, ["serve"], str(tiny_version)).signature_def
        encoded = signatures["serving_default"].inputs["image_bytes"].name
        entrance = signatures["image_feature_vector"].inputs["images"].name
        batch = strings(good[0], b"", b"no image", good[1])
        assert session.run(entrance, {encoded: batch}).shape == (2, *SIZE, 3)


def test_of_bad_images_alone_nothing_is_computed(session):
    result = session.run("serving_default", image_bytes=strings(b"", b"no image"))

    assert result["status"].tolist() == [1, 2]
    assert np.isnan(result["features"]).all()
    assert result["features"].shape == (2, DIMENSION)
    no_images = np.zeros((0, *SIZE, 3), np.float32)
    assert session.run("image_feature_vector", images=no_images)["default"].shape == (0, DIMENSION)
