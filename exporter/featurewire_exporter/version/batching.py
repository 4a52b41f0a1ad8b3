"""Allowed batch sizes, and the file with them for TensorFlow Serving."""

from __future__ import annotations

FILE = "batching_params.pbtxt"
_TIMEOUT_MICROS = 1000  # a lone request waits this long; small compared with the time of one image
_QUEUED_BATCHES = 64


def allowed_batch_sizes(max_batch_size: int) -> list[int]:
    """Powers of two up to, and always including, `max_batch_size`.

    TensorFlow Serving pads a batch to the next of these, so at most half of it is padding, and each
    size is warmed up once.
    """
    sizes = [2**i for i in range(max_batch_size.bit_length()) if 2**i < max_batch_size]
    return [*sizes, max_batch_size]


def batching_params(max_batch_size: int) -> str:
    """`BatchingParameters` in text form, for `--enable_per_model_batching_parameters`.

    It omits the number of batch threads, whose default is the number of the host's cores.
    """
    lines = [
        f"max_batch_size {{ value: {max_batch_size} }}",
        f"batch_timeout_micros {{ value: {_TIMEOUT_MICROS} }}",
        f"max_enqueued_batches {{ value: {_QUEUED_BATCHES} }}",
        *(f"allowed_batch_sizes: {size}" for size in allowed_batch_sizes(max_batch_size)),
    ]
    return "\n".join(lines) + "\n"
