"""Embed a folder of photos with Apache Beam; each worker has one client for all its shards.

    python beam_job.py PHOTOS OUTPUT --server HOST:PORT --model NAME --workers 4

Arguments after `--` are passed to Beam, such as `-- --runner=FlinkRunner --flink_master=HOST:PORT`.
"""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from arguments import arguments
from shards import Job, Shard, begin, connect, embed_shard, shards_to_do


class Embed(beam.DoFn):
    """Embeds shards. Beam calls `setup` once in each worker."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.client = connect(self.job)

    def process(self, shard: Shard) -> Iterator[int]:
        yield embed_shard(shard, self.job, self.client)

    def teardown(self) -> None:
        self.client.close()


def main() -> None:
    options = arguments(__doc__)
    job = begin(options.server, options.model, options.output, options.label)
    shards = shards_to_do(options.photos, job, options.shard_size)
    if not shards:
        print("nothing to do: every shard exists")
        return
    here = [
        "--runner=FnApiRunner",
        f"--direct_num_workers={options.workers}",
        "--direct_running_mode=multi_processing",
        "--save_main_session",
    ]
    with beam.Pipeline(options=PipelineOptions(options.engine or here)) as pipeline:
        (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()  # otherwise all shards are one bundle, for one worker
            | beam.ParDo(Embed(job))
            | beam.CombineGlobally(sum)
            | beam.Map(lambda photos: print(f"embedded {photos} photos"))
        )


if __name__ == "__main__":
    main()
