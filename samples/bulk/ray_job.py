"""Embed a folder of photos with Ray Data; each worker has one client for all its shards.

python ray_job.py PHOTOS OUTPUT --server HOST:PORT --model NAME --workers 4
"""

from __future__ import annotations

import logging
from typing import Any

import ray
from arguments import arguments
from shards import Job, Shard, begin, connect, embed_shard, shards_to_do


class Embedder:
    """Embeds shards. Ray makes one per worker, and another one if the worker dies."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.client = connect(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"photos": embed_shard(Shard(tuple(row["paths"])), self.job, self.client)}


def main() -> None:
    options = arguments(__doc__)
    job = begin(options.server, options.model, options.output, options.label)
    shards = shards_to_do(options.photos, job, options.shard_size)
    if not shards:
        print("nothing to do: every shard exists")
        return
    ray.init(address=options.cluster, include_dashboard=False, logging_level=logging.WARNING)
    items = ray.data.from_items(
        [{"paths": list(shard.paths)} for shard in shards], override_num_blocks=len(shards)
    )
    embedded = items.map(
        Embedder,  # type: ignore[arg-type]  # Ray accepts a class, but its types do not
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=0.5,
    )
    print(f"embedded {sum(row['photos'] for row in embedded.iter_rows())} photos")


if __name__ == "__main__":
    main()
