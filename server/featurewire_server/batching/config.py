"""BatchingParameters, checked: how large batches are and how long they wait."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters
from featurewire_server.common import cgroup
from featurewire_server.common.errors import invalid_argument


@dataclass(frozen=True, kw_only=True)
class BatchingConfig:
    """BatchingParameters, checked, with TensorFlow Serving's defaults."""

    max_batch_size: int = 1000
    """Rows of the largest task, and of the largest batch unless `split` makes these smaller."""
    max_execution_batch_size: int | None = None
    """Rows of the largest batch that runs, with `split`; None: max_batch_size."""
    timeout: float = 0.0
    """Seconds a batch waits to be filled."""
    max_enqueued_batches: int = 10
    threads: int = cgroup.cores()
    """Batches of all models together that run at once."""
    allowed_sizes: tuple[int, ...] = ()
    """Batches are padded up to the next of these; empty: to none."""
    pad_variable_length: bool = False
    """Merge inputs that differ beyond dimension 0, padded with zeros or empty strings."""
    split: bool = False
    """Let a task larger than a batch that runs, or than the room in one, run in several."""
    merge: bool = True
    """False: without batching, every task is a batch."""

    @classmethod
    def unbatched(cls) -> BatchingConfig:
        """Every task is a batch of any size, with no limit on the queue."""
        return cls(max_batch_size=1 << 31, max_enqueued_batches=1 << 31, merge=False)

    @classmethod
    def from_proto(cls, proto: BatchingParameters) -> BatchingConfig:
        """Raises INVALID_ARGUMENT for values that contradict each other."""
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
