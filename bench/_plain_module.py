"""What TensorFlow Serving would run without this project: the hub module as it is.

The module's own float32 graph and variables, behind a plain decode of every image in a `map_fn`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def plain_module(base_path: Path) -> Path:
    """`base_path`, with the stand-in module as version 1 in it; made unless it is there."""
    if not (base_path / "1").is_dir():
        # In a process of its own: TensorFlow keeps the memory that it takes.
        subprocess.run([sys.executable, "-m", "bench._plain_module", str(base_path)], check=True)
    return base_path


def _write(base_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_hub as hub

    from featurewire_exporter.stand_in import write_stand_in

    module = hub.load(str(write_stand_in(base_path.parent / f"{base_path.name}-module")))
    network = module.signatures["image_feature_vector"]

    def decode(image: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
        return tf.image.resize(tf.image.convert_image_dtype(pixels, tf.float32), [299, 299])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)
        images = tf.ensure_shape(images, [None, 299, 299, 3])
        return {"features": network(images=images)["default"]}

    holder = tf.Module()
    holder.module = module
    holder.serve = serve
    tf.saved_model.save(holder, str(base_path / "1"), signatures={"serving_default": serve})


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
