"""Load versions like TensorFlow Serving in the oldest TensorFlow, and embed images.

usage: oldest_tensorflow.py VERSION_DIR IMAGE_DIR

Prints a JSON list: status and vector of each file in IMAGE_DIR. Imports nothing of this project.
"""

import json
import pathlib
import sys

import tensorflow as tf

tf1 = tf.compat.v1


def main() -> None:
    version, images = sys.argv[1:]
    encoded = [path.read_bytes() for path in sorted(pathlib.Path(images).iterdir())]
    with tf1.Session(graph=tf.Graph()) as session:
        signatures = tf1.saved_model.load(session, ["serve"], version).signature_def
        signature = signatures["serving_default"]
        result = session.run(
            {key: info.name for key, info in signature.outputs.items()},
            {signature.inputs["image_bytes"].name: encoded},
        )
        manifest = signatures["manifest"]
        session.run(
            manifest.outputs["manifest"].name, {manifest.inputs["request"].name: [b"", b""]}
        )
    rows = zip(result["status"].tolist(), result["features"].tolist(), strict=True)
    print(json.dumps({"tensorflow": tf.__version__, "rows": list(rows)}))


if __name__ == "__main__":
    main()
