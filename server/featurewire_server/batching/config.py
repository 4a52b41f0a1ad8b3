"""The batching settings: how large batches become, and how long they wait."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters
from featurewire_server.common import cgroup
from featurewire_server.common.errors import invalid_argument


@dataclass(frozen=True, kw_only=True)
class BatchingConfig:
    """Checked BatchingParameters, with TensorFlow Serving's defaults."""

    max_batch_size: int = 1000
    """Maximum rows per task. Also the maximum rows per batch, unless `split` sets a lower one."""
    max_execution_batch_size: int | None = None
    """Maximum rows per batch with `split`; None: max_batch_size."""
    timeout: float = 0.0
    """Maximum seconds that a batch waits for more tasks."""
    max_enqueued_batches: int = 10
    threads: int = cgroup.cores()
    """Maximum number of running batches, over all models."""
    allowed_sizes: tuple[int, ...] = ()
    """Batches are padded to the next of these sizes; empty: batches are not padded."""
    pad_variable_length: bool = False
    """Merge inputs that differ beyond dimension 0, padded with zeros or empty strings."""
    split: bool = False
    """Split a task over several batches if it does not fit into one, or into the room left."""
    merge: bool = True
    """Whether batching is on; without batching, every task is a separate batch."""

    @classmethod
    def unbatched(cls) -> BatchingConfig:
        """The settings without batching: each task is a batch, and the queue has any length."""
        return cls(max_batch_size=1 << 31, max_enqueued_batches=1 << 31, merge=False)

    @classmethod
    def from_proto(cls, proto: BatchingParameters) -> BatchingConfig:
        """The settings in `proto`.

        Raises INVALID_ARGUMENT for values that are out of range or contradict each other.
        """
        given = {
            "max_batch_size": ("max_batch_size", 1),
            "timeout": ("batch_timeout_micros", 1e-6),
            "max_execution_batch_size": ("max_execution_batch_size", 1),
            "max_enqueued_batches": ("max_enqueued_batches", 1),
            "threads": ("num_batch_threads", 1),
        }
        values = {
            name: getattr(proto, source).value * scale
            for name, (source, scale) in given.items()
            if proto.HasField(source)
        }
        config = cls(
            **values,
            allowed_sizes=tuple(proto.allowed_batch_sizes),
            pad_variable_length=proto.pad_variable_length_inputs,
            split=proto.enable_large_batch_splitting.value,
        )
        config.check()
        return config

    def check(self) -> None:
        for name in (
            "max_batch_size",
            "max_execution_batch_size",
            "max_enqueued_batches",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise invalid_argument(f"{name} must be positive; was {value}")
        if self.execution_size > self.max_batch_size:
            raise invalid_argument(
                "max_execution_batch_size must not be larger than max_batch_size; was "
                f"{self.execution_size} and {self.max_batch_size}"
            )
        if self.timeout < 0:
            raise invalid_argument("batch_timeout_micros must be non-negative")
        sizes = self.allowed_sizes
        if sizes and (list(sizes) != sorted({*sizes}) or sizes[0] < 1):
            raise invalid_argument(
                f"allowed_batch_sizes entries must be positive and increase; was {list(sizes)}"
            )
        if sizes and sizes[-1] != self.execution_size:
            largest = "max_execution_batch_size" if self.split else "max_batch_size"
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match {largest}; last was {sizes[-1]}; "
                f"expected {self.execution_size}"
            )

    @property
    def execution_size(self) -> int:
        """Rows of the largest batch that runs."""
        if self.split and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size
