"""Reads a module: finds the function that makes its vectors, the image size and the dimension.

The size and the dimension come from the module's announcement and from the output of its function;
none of them is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from featurewire_exporter.errors import ModuleError, one_line
from featurewire_exporter.source import tf1_hub
from featurewire_exporter.source.signatures import (
    OTHER_FLOATS,
    SAVE_AS_FLOAT32,
    Advice,
    signature_names,
    vector_function,
)

_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
"""Operations that work only in the process that built them."""


_OF_AN_EXPORT = Advice(
    "leave --image-size out",
    "use a module with a free batch size, and --image-size HEIGHTxWIDTH if it takes several sizes",
    "choose one with --signature NAME",
)
_OF_A_VERSION = Advice(*["name the module that the version was made from"] * 3)


@dataclass(frozen=True, kw_only=True)
class Module:
    """A loaded module."""

    directory: str
    """The folder of the module."""
    format: str
    """`TF1 Hub`, `TF1 SavedModel` or `SavedModel`."""
    tags: tuple[str, ...]
    """Tags of the graph variant that was loaded."""
    signature: str
    """The signature that is used, or `__call__`."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    dimension: int
    """Floats in a vector."""
    function: Any
    """Concrete function of one tensor, float32 [N, height, width, 3] in `input_range`."""
    input_range: tuple[float, float] = (0.0, 1.0)
    """The values of black and white in the function's input."""
    output_index: int
    """Which of the function's flat outputs is the vector, float32 [N, dimension]."""
    output_name: str
    """The signature's name of that output, or an empty string."""
    owner: Any
    """The loaded object, which keeps the variables alive."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Vectors of `images`, float32 in [0, 1], by the module itself as TensorFlow loads it."""
        low, high = map(np.float32, self.input_range)
        outputs = self.function(tf.constant(images * (high - low) + low))
        return tf.nest.flatten(outputs, expand_composites=True)[self.output_index].numpy()


def load_module(
    directory: str,
    *,
    handle: str | None = None,
    image_size: tuple[int, int] | None = None,
    signature: str | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    made_from: bool = False,
) -> Module:
    """Load the module in `directory`, always its inference variant.

    `handle`: the module's name in errors; None uses its directory.
    `image_size` (height, width) is for modules that accept any size; for others it must match.
    `signature`: the signature to use, or `__call__`; None chooses one whose name says that it gives
    vectors, and refuses a module with several signatures of unknown names.
    `input_range`: the values of black and white in the module's input.
    `made_from`: all of these come from a version that was made from the module. A signature that
    the module lacks is then ignored.
    Raises `ModuleError`.
    """
    try:
        return _load(directory, image_size, signature, input_range, made_from)
    except ModuleError as error:
        if handle is None or handle == directory:
            raise
        # A module from an archive is in a hidden folder, so the error names its handle instead.
        raise ModuleError(str(error).replace(directory, handle)) from error


def _load(
    directory: str,
    image_size: tuple[int, int] | None,
    signature: str | None,
    input_range: tuple[float, float],
    made_from: bool,
) -> Module:
    advice = _OF_A_VERSION if made_from else _OF_AN_EXPORT
    metas = _read_meta_graphs(directory)
    is_tf1_hub = tf1_hub.is_tf1_hub(directory)
    tags = _inference_tags(directory, metas, is_tf1_hub=is_tf1_hub)
    try:
        loaded = tf.saved_model.load(directory, tags=tags)
    except Exception as error:
        raise ModuleError(
            f"{directory} holds a SavedModel that TensorFlow cannot load ({one_line(error)}); "
            "fetch or export the module again"
        ) from error
    announced = next((tf1_hub.announced_image_size(m) for m in metas if _tags(m) == tags), None)
    if made_from and signature not in signature_names(loaded):
        signature = None
    name, bind, spec = vector_function(directory, loaded, signature, advice)
    size = _image_size(directory, announced, spec, image_size, advice)
    try:
        function = bind(tf.TensorSpec([None, *size, 3], tf.float32))
    except Exception as error:
        raise _not_for(directory, size, error, advice) from error
    _check_python(function.graph.as_graph_def())
    output_index, output_name, dimension = _vector_output(directory, function, size, advice)
    meta = next(meta for meta in metas if _tags(meta) == tags)
    return Module(
        directory=directory,
        format=_format(meta, is_tf1_hub=is_tf1_hub),
        tags=tuple(tags),
        signature=name,
        image_size=size,
        dimension=dimension,
        function=function,
        input_range=input_range,
        output_index=output_index,
        output_name=output_name,
        owner=loaded,
    )


def _check_python(graph_def: Any) -> None:
    """Raises `ModuleError` if the function calls Python, which would run only in this process."""
    bodies = [graph_def.node, *(each.node_def for each in graph_def.library.function)]
    held = sorted({node.op for body in bodies for node in body} & _PYTHON_OPS)
    if held:
        raise ModuleError(
            f"the module calls Python code while it runs ({', '.join(held)}), which a server "
            "cannot run; rebuild it without tf.py_function and tf.numpy_function"
        )


def _not_for(
    directory: str, size: tuple[int, int], error: Exception, advice: Advice
) -> ModuleError:
    return ModuleError(
        f"{directory} does not take images of {size[0]}x{size[1]} pixels in batches of any size "
        f"({one_line(error)}); {advice.refused}"
    )


def _read_meta_graphs(directory: str) -> list[Any]:
    path = f"{directory}/saved_model.pb"
    if not tf.io.gfile.exists(path):
        raise ModuleError(
            f"{directory} is not a module: it has no saved_model.pb; give the folder (or "
            "archive) that has saved_model.pb at its top"
        )
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            metas = list(saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs)
    except DecodeError as error:
        raise ModuleError(
            f"{path} is damaged: it is not a SavedModel; fetch the module again"
        ) from error
    if not metas:
        raise ModuleError(f"{path} has no graph; fetch the module again")
    return metas


def _format(meta: Any, *, is_tf1_hub: bool) -> str:
    if is_tf1_hub:
        return "TF1 Hub"
    return "SavedModel" if meta.HasField("object_graph_def") else "TF1 SavedModel"


def _tags(meta: Any) -> list[str]:
    return sorted(meta.meta_info_def.tags)


def _inference_tags(directory: str, metas: list[Any], *, is_tf1_hub: bool) -> list[str]:
    """The tag set to load: never a training variant, where vectors depend on batch-mates."""
    present = [_tags(meta) for meta in metas]
    for wanted in ([], ["serve"]) if is_tf1_hub else (["serve"], []):
        if wanted in present:
            return wanted
    usable = [tags for tags in present if "train" not in tags]
    if len(usable) == 1:
        return usable[0]
    raise ModuleError(
        f"{directory} has no inference variant: its tag sets are "
        f"{', '.join(map(str, present))}; one without tags or with 'serve' is needed"
    )


def _image_size(
    directory: str,
    announced: tuple[int, int] | None,
    shape: tf.TensorShape,
    wanted: tuple[int, int] | None,
    advice: Advice,
) -> tuple[int, int]:
    own = None
    if shape.rank == 4 and shape[1] and shape[2]:
        own = (shape[1], shape[2])
    own = own or announced
    if own and wanted and own != wanted:
        raise ModuleError(
            f"{directory} takes images of {own[0]}x{own[1]} pixels, not "
            f"{wanted[0]}x{wanted[1]}; {advice.other_size}"
        )
    if size := own or wanted:
        return size
    raise ModuleError(
        f"{directory} does not say its image size; give it with --image-size HEIGHTxWIDTH"
    )


def _vector_output(
    directory: str, function: Any, size: tuple[int, int], advice: Advice
) -> tuple[int, str, int]:
    """The vector's index among the flat outputs, its name in the signature, and its dimension."""
    structured = function.structured_outputs
    outputs = tf.nest.flatten(structured, expand_composites=True)
    names = list(structured) if isinstance(structured, dict) else [""] * len(outputs)
    names = sorted(names)
    floats = [i for i, o in enumerate(outputs) if o.dtype == tf.float32]
    chosen = [i for i in floats if names[i] == "default"] or [
        i for i in floats if outputs[i].shape.rank in (2, None)
    ]
    if len(chosen) != 1:
        lower = [o.dtype.name for o in outputs if o.dtype in OTHER_FLOATS]
        if not floats and lower:
            raise ModuleError(
                f"{directory} returns vectors in {lower[0]}, and only float32 can be exported; "
                f"{SAVE_AS_FLOAT32}"
            )
        raise ModuleError(
            f"{directory} returns {len(outputs)} outputs, {len(chosen)} of which could be the "
            "vector; one float32 [N, dimension] is needed, or one named 'default'"
        )
    index = chosen[0]
    try:
        vector = tf.nest.flatten(function(tf.zeros([2, *size, 3])), expand_composites=True)[index]
    except (tf.errors.OpError, ValueError) as error:
        raise _not_for(directory, size, error, advice) from error
    if vector.shape.rank != 2 or vector.shape[0] != 2:
        raise ModuleError(
            f"{directory} returns {vector.shape} for two images, not [2, dimension]; "
            "it is not an image-feature-vector module"
        )
    return index, names[index], int(vector.shape[1])
