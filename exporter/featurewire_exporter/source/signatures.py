"""Finds the function of a loaded module that turns images into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from featurewire_exporter.errors import ModuleError

_SIGNATURES = ("image_feature_vector", "default", "serving_default")
"""Signatures that may give vectors, the most specific first."""
CALL = "__call__"
"""The value of `Module.signature` if the module itself is called."""
OTHER_FLOATS = {tf.float16, tf.bfloat16, tf.float64}
SAVE_AS_FLOAT32 = (
    "save the model in float32 (in Keras, build it under keras.config.set_dtype_policy('float32') "
    "and load the weights into it) and lower the precision with --precision"
)


class Advice(NamedTuple):
    """Advice in errors about a refused module; it depends on the command's options."""

    other_size: str
    refused: str
    several_signatures: str


Bind = Callable[[tf.TensorSpec], Any]


def vector_function(
    directory: str, loaded: Any, wanted: str | None, advice: Advice
) -> tuple[str, Bind, tf.TensorShape]:
    """Name of the function, a callable that makes it concrete, and the shape of its input."""
    names = signature_names(loaded)
    if wanted is not None and wanted not in names:
        raise ModuleError(
            f"{directory} has no signature {wanted!r}; it has {_listed(names) or 'none'}"
        )
    usable = {name: shape for name in names if (shape := _image_shape(loaded, name)) is not None}
    name = wanted if wanted is not None else _chosen(directory, usable, advice)
    if name is None or name not in usable:
        raise ModuleError(_no_images(directory, loaded, [wanted] if wanted else names))
    if name == CALL:
        return CALL, lambda image_spec: _concrete_call(loaded, image_spec), usable[name]
    function = loaded.signatures[name]
    (key,) = _inputs(function)
    return name, _signature_binder(function, key), usable[name]


def signature_names(loaded: Any) -> list[str]:
    """The names of the signatures; first `__call__` if the module is callable with a tensor."""
    called = callable(loaded) and bool(getattr(loaded.__call__, "concrete_functions", []))
    return [CALL] * called + sorted(getattr(loaded, "signatures", {}))


def _inputs(function: Any) -> dict[str, Any]:
    """Specifications of a signature's inputs by their names."""
    return dict(function.structured_input_signature[1])


def _image_shape(loaded: Any, name: str) -> tf.TensorShape | None:
    """Shape of the images that a signature or `__call__` takes; None if it does not take images."""
    if name == CALL:
        return _call_spec(loaded)
    specs = [*_inputs(loaded.signatures[name]).values()]
    return specs[0].shape if len(specs) == 1 and _takes_images(specs[0]) else None


def _chosen(directory: str, usable: Iterable[str], advice: Advice) -> str | None:
    """The signature whose name says that it gives vectors, or the only one there is."""
    # A TF2 module's __call__ is its interface; its signatures are optional.
    for name in (CALL, *_SIGNATURES):
        if name in usable:
            return name
    others = [*usable]
    if len(others) > 1:
        raise ModuleError(
            f"{directory} has several signatures that take images ({_listed(others)}), and none "
            f"of their names says that it gives feature vectors; {advice.several_signatures}"
        )
    return others[0] if others else None


def _no_images(directory: str, loaded: Any, names: Sequence[str]) -> str:
    """The reason why none of these signatures can be used."""
    for name in names:
        for spec in _first_inputs(loaded, name):
            if _shaped_as_images(spec) and spec.dtype in OTHER_FLOATS:
                return (
                    f"{directory} takes images in {spec.dtype.name} ({name}), and only float32 "
                    f"can be exported; {SAVE_AS_FLOAT32}"
                )
    signatures = _listed(name for name in names if name != CALL)
    return (
        f"{directory} is not an image-feature-vector module: none of its signatures "
        f"({signatures or 'it has none'}) takes one batch of float32 images "
        "[N, height, width, 3], and it is not callable with one"
    )


def _first_inputs(loaded: Any, name: str) -> list[Any]:
    if name != CALL:
        return [*_inputs(loaded.signatures[name]).values()][:1]
    functions = loaded.__call__.concrete_functions
    return [
        spec
        for function in functions
        for spec in tf.nest.flatten(function.structured_input_signature[0])[:1]
    ]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _takes_images(spec: Any) -> bool:
    return _shaped_as_images(spec) and spec.dtype == tf.float32


def _shaped_as_images(spec: Any) -> bool:
    if not isinstance(spec, tf.TensorSpec):
        return False
    return spec.shape.rank is None or (spec.shape.rank == 4 and spec.shape[3] in (3, None))


def _call_spec(loaded: Any) -> tf.TensorShape | None:
    """Shape of the images that `__call__` was traced with; None if it does not take images."""
    specs = _first_inputs(loaded, CALL)
    return next((spec.shape for spec in specs if _takes_images(spec)), None)


def _concrete_call(loaded: Any, image_spec: tf.TensorSpec) -> Any:
    names = {
        name
        for function in loaded.__call__.concrete_functions
        for name in _argument_names(function)
    }
    inference = {"training": False} if "training" in names else {}

    def call(images: tf.Tensor) -> Any:
        return loaded(images, **inference)

    return tf.function(call).get_concrete_function(image_spec)


def _argument_names(function: Any) -> list[str]:
    return list(function.function_type.parameters)


def _signature_binder(function: Any, key: str) -> Bind:
    def bind(image_spec: tf.TensorSpec) -> Any:
        def call(images: tf.Tensor) -> Any:
            return function(**{key: images})

        return tf.function(call).get_concrete_function(image_spec)

    return bind
