"""The SavedModel that is served: signatures over preprocessing and a frozen network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.preprocess import PreprocessConfig, build_decode
from featurewire_exporter.preprocess.batch import spread

tf1 = tf.compat.v1

PREDICT = "tensorflow/serving/predict"
_MANIFEST = "manifest/json"
_NETWORK = "network"

Bridge = Callable[[tf.Tensor], tf.Tensor]
"""Adds operations to the current graph, from vectors, float32 `[N, dimension]`, to those of an
older space."""


class Artifact:
    """The served graph, in memory: one meta graph with the tag `serve`."""

    def __init__(
        self,
        network: FrozenNetwork,
        config: PreprocessConfig,
        *,
        dimension: int,
        bridges: Mapping[str, Bridge] | None = None,
    ) -> None:
        """`bridges`: operations into older spaces, by the names of their signatures."""
        with tf.Graph().as_default():
            signatures = _build(network, config, dimension, bridges or {})
            self._meta = tf1.train.export_meta_graph(strip_default_attrs=True)
            for name, (inputs, outputs) in signatures.items():
                signature = self._meta.signature_def[name]
                signature.method_name = PREDICT
                for tensors, into in ((inputs, signature.inputs), (outputs, signature.outputs)):
                    for key, tensor in tensors.items():
                        into[key].CopyFrom(tf1.saved_model.build_tensor_info(tensor))
        self._meta.ClearField("saver_def")
        self._meta.meta_info_def.tags.append("serve")

    def write(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Write `saved_model.pb` and `variables/` into `directory`, which exists."""
        for node in self._meta.graph_def.node:
            if node.name == _MANIFEST:
                text = json.dumps(manifest, sort_keys=True)
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
        saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        saved_model.meta_graphs.append(self._meta)
        (directory / "variables").mkdir(exist_ok=True)
        (directory / "saved_model.pb").write_bytes(saved_model.SerializeToString())


class ArtifactSession:
    """A published version in a TensorFlow 1 Session, as TensorFlow Serving runs it."""

    def __init__(self, directory: str | Path) -> None:
        self._session = tf1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            meta = tf1.saved_model.load(self._session, ["serve"], str(directory))
        self.signatures = meta.signature_def

    def run(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        (outputs,) = self.run_together([signature], **inputs)
        return outputs

    def run_together(self, signatures: Sequence[str], **inputs: Any) -> list[dict[str, np.ndarray]]:
        """Outputs of each of `signatures` for the same inputs, from one run.

        TensorFlow prepares the graph once for each set of outputs, in a second or more.
        """
        definitions = [self.signatures[signature] for signature in signatures]
        outputs = [
            {key: info.name for key, info in definition.outputs.items()}
            for definition in definitions
        ]
        feeds = {definitions[0].inputs[key].name: value for key, value in inputs.items()}
        return self._session.run(outputs, feeds)

    def __enter__(self) -> ArtifactSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


Tensors = dict[str, tf.Tensor]


def _build(
    network: FrozenNetwork, config: PreprocessConfig, dimension: int, bridges: Mapping[str, Bridge]
) -> dict[str, tuple[Tensors, Tensors]]:
    """Fill the current graph; returns inputs and outputs of each signature."""
    size = [config.height, config.width]
    with tf.device("/CPU:0"):
        image_bytes = tf1.placeholder(tf.string, [None], name="image_bytes")
        good, status = build_decode(config)(image_bytes)
        status = tf.identity(status, name="status")
        preprocessed = spread(good, status, 0.0)
        # Images enter the network only here: `serving_default` passes the decoded ones on, and
        # `image_feature_vector` feeds other images instead.
        images = tf1.placeholder_with_default(good, [None, *size, 3], name="images")
        # An empty batch skips the network, in a dead branch up to the merge. `tf.cond` would put
        # the network into a function, which is not optimised as one graph.
        some = tf.raw_ops.Switch(data=images, pred=tf.shape(images)[0] > 0)
        entering = tf.identity(some.output_true, name="entering")
    (default,) = tf.graph_util.import_graph_def(
        network.graph_def,
        input_map={network.input: entering},
        return_elements=[network.output],
        name=_NETWORK,
    )
    with tf.device("/CPU:0"):
        none = tf.zeros([tf.shape(some.output_false)[0], dimension])
        default = tf.raw_ops.Merge(inputs=[default, none]).output
        default = tf.ensure_shape(default, [None, dimension])
        features = tf.identity(spread(default, status, np.nan), name="features")
        request = tf1.placeholder(tf.string, [None], name="request")
        manifest = tf.fill(tf.shape(request), tf.constant("", name=_MANIFEST))
        bridged = {
            name: tf.identity(spread(bridge(default), status, np.nan), name=name)
            for name, bridge in bridges.items()
        }
    served = {
        name: ({"image_bytes": image_bytes}, {"features": vectors, "status": status})
        for name, vectors in bridged.items()
    }
    return {
        "serving_default": ({"image_bytes": image_bytes}, {"features": features, "status": status}),
        "preprocess": ({"image_bytes": image_bytes}, {"images": preprocessed, "status": status}),
        "image_feature_vector": ({"images": images}, {"default": default}),
        "manifest": ({"request": request}, {"manifest": manifest}),
        **served,
    }
