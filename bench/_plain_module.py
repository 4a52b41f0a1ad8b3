"""Write the version that TensorFlow Serving would run without this project.

It decodes every image plainly in a `map_fn`, and runs the hub module's float32 graph and variables.
"""

from __future__ import annotations

import sys


def _write(folder: str, version: str) -> None:
    import tensorflow as tf

    module = tf.saved_model.load(folder, tags=[])
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
    tf.saved_model.save(holder, version, signatures={"serving_default": serve})


if __name__ == "__main__":
    _write(*sys.argv[1:])
