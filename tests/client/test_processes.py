"""Forks, imports and other libraries: tests that need a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import featurewire
from featurewire import StreamConfig
from featurewire._rpc.channel import close_all
from tests.client.misbehaving import Misbehaving, image

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, *arguments: str, timeout: float = 120) -> str:
    """Run code in a new interpreter; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


FORK = f"""
    import sys
    sys.path.insert(0, {str(ROOT)!r})
    import featurewire
    from tests.client.misbehaving import image
    from tests.client.forking import in_a_fork
    client = featurewire.Client(sys.argv[1], model="tiny")
    client.embed(image(1))
"""


@pytest.fixture(scope="module")
def server():
    with Misbehaving() as server:
        yield server


def test_a_client_taken_into_a_fork_says_so_and_the_parents_goes_on(server):
    said = run(
        FORK
        + """
    for use in (
        lambda: client.embed(image(2)),
        lambda: list(client.stream([image(2)])),
        client.status,
        client.stats,
    ):
        print(in_a_fork(use))
    client.embed(image(3))
    """,
        server.target,
    )
    lines = said.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("ConfigError")
        assert "fork" in line


def test_a_forked_stream_raises_in_the_child_and_not_in_the_parent(server):
    said = run(
        FORK
        + """
    results = client.stream(image(number) for number in range(300))
    next(results)
    print(in_a_fork(lambda: list(results)))
    assert len(list(results)) == 299
    """,
        server.target,
    )
    assert said.startswith("ConfigError")


UNTOUCHED = f"""
    import asyncio, sys
    sys.path.insert(0, {str(ROOT)!r})
    import featurewire
    from tests.client.misbehaving import image
    from tests.client.forking import in_a_fork
    client = featurewire.Client(sys.argv[1], model="tiny")
    view = client.with_options(timeout=20)
    asynchronous = featurewire.AsyncClient(sys.argv[1], model="tiny")
"""


def test_a_client_that_was_not_used_survives_a_fork(server):
    said = run(
        UNTOUCHED
        + """
    stream = client.stream([image(1), image(2)])
    def embed():
        async def one():
            return (await asynchronous.embed(image(2))).version
        return [client.embed(image(2)).version, view.embed(image(3)).version,
                len(list(stream)), client.stats().images, asyncio.run(one())]
    for _ in range(3):
        print(in_a_fork(embed))
    print(embed())
    print(in_a_fork(embed))
    """,
        server.target,
    )
    *good, refused = said.splitlines()
    assert good == ["returned [1, 1, 2, 4, 1]"] * 3 + ["[1, 1, 2, 4, 1]"]
    assert refused.startswith("ConfigError")


def test_a_client_taken_into_a_fork_names_the_hooks(server):
    said = run(
        UNTOUCHED
        + """
    print(client.is_ready())
    print(in_a_fork(lambda: client.embed(image(2))))
    """,
        server.target,
    )
    assert said.startswith("True\nConfigError: this client was used in process ")
    for hook in ("post_fork", "postfork", "worker_process_init", "initializer", "spawn"):
        assert hook in said


def test_an_unused_client_survives_beside_one_in_use(server):
    said = run(
        UNTOUCHED
        + """
    with featurewire.Client(sys.argv[1], model="tiny") as other:
        other.embed(image(1))
        print(in_a_fork(lambda: client.embed(image(2)).version))
    """,
        server.target,
    )
    assert said == "returned 1"


def test_closing_a_client_in_a_fork_leaves_the_parents_alone(server):
    said = run(
        FORK
        + """
    print(in_a_fork(client.close))
    client.embed(image(3))
    """,
        server.target,
    )
    assert said == "returned None"


def test_a_client_made_in_a_fork_works(server):
    said = run(
        FORK
        + """
    def fresh():
        with featurewire.Client(sys.argv[1], model="tiny") as mine:
            return mine.embed(image(2)).version
    print(in_a_fork(fresh))
    """,
        server.target,
    )
    assert said == "returned 1"


def test_importing_the_client_imports_no_heavy_library():
    said = run(
        """
        import sys, featurewire
        print(sorted(sys.modules.keys() & {"tensorflow", "grpc", "numpy", "pyarrow", "asyncio"}))
        featurewire.Client
        featurewire.AsyncClient
        print(any(name.startswith(("tensorflow", "pyarrow")) for name in sys.modules))
        """
    )
    assert said.splitlines() == ["[]", "False"]


IMPORTS = {
    "featurewire": "import featurewire; featurewire.Client",
    "tensorflow": "import tensorflow as tf\n"
    "from tensorflow_serving.apis import (\n"
    "    get_model_metadata_pb2, model_service_pb2, predict_pb2, prediction_service_pb2_grpc)",
}

BESIDE = """
with featurewire.Client(sys.argv[1], model="tiny") as client:
    vector = client.embed(bytes.fromhex("ffd8ff00000007")).vector
request = predict_pb2.PredictRequest()
request.inputs["x"].CopyFrom(tf.make_tensor_proto(vector))
print(tf.make_ndarray(request.inputs["x"]).shape)
"""

SUBSET = """
import importlib, pkgutil
import featurewire._tfs as ours
from google.protobuf import descriptor_pool

upstream = descriptor_pool.Default()
checked = 0

def same(mine):
    global checked
    theirs = upstream.FindMessageTypeByName(mine.full_name)
    for field in mine.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type) == (other.number, other.type), field.full_name
        assert getattr(field, "is_repeated", None) == getattr(other, "is_repeated", None)
        assert field.is_packed == other.is_packed, field.full_name
        for kind in ("message_type", "enum_type"):
            names = [getattr(each, kind) and getattr(each, kind).full_name
                     for each in (field, other)]
            assert names[0] == names[1], field.full_name
        one, two = field.containing_oneof, other.containing_oneof
        assert (one and one.name) == (two and two.name), field.full_name
        checked += 1
    for nested in mine.nested_types:
        same(nested)
    for enum in mine.enum_types:
        same_values(enum)

def same_values(enum):
    theirs = upstream.FindEnumTypeByName(enum.full_name)
    for value in enum.values:
        assert theirs.values_by_name[value.name].number == value.number, value.name

for module in pkgutil.iter_modules(ours.__path__):
    if not module.name.endswith("_pb2"):
        continue
    file = importlib.import_module("featurewire._tfs." + module.name).DESCRIPTOR
    for message in file.message_types_by_name.values():
        same(message)
    for enum in file.enum_types_by_name.values():
        same_values(enum)
    for service in file.services_by_name.values():
        theirs = upstream.FindServiceByName(service.full_name)
        for method in service.methods:
            other = theirs.methods_by_name[method.name]
            assert method.input_type.full_name == other.input_type.full_name
            assert method.output_type.full_name == other.output_type.full_name
print(checked)
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", [("featurewire", "tensorflow"), ("tensorflow", "featurewire")])
def test_it_works_next_to_tensorflow_and_its_protos_match_upstream(server, order):
    imports = "\n".join(IMPORTS[each] for each in order)
    shape, checked = run(f"import sys\n{imports}\n{BESIDE}{SUBSET}", server.target).splitlines()
    assert shape == "(8,)"
    assert int(checked) > 50


def test_a_client_that_is_never_closed_does_not_keep_its_process():
    said = run(
        """
        import featurewire
        client = featurewire.Client("127.0.0.1:1", model="tiny", timeout=0.5)
        try:
            client.embed(b"x")
        except featurewire.ServerUnavailableError:
            print("done")
        """,
        timeout=30,
    )
    assert said == "done"


def test_the_hint_to_the_allocator_may_find_no_memory():
    said = run(
        """
        import resource
        import featurewire
        from featurewire._rpc import connection
        connection.MAX_BLOCK_BYTES = 1 << 50
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        featurewire.Client("127.0.0.1:1", model="tiny").close()
        print("made")
        """
    )
    assert said == "made"


@pytest.mark.slow
def test_an_interrupt_in_a_stream_ends_the_with_block(server):
    """Repeat it, because the interrupt must hit the moment between a call and gRPC's `close`."""
    said = run(
        """
        import itertools, os, random, signal, sys, threading
        import featurewire
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for _ in range(8):
            try:
                with featurewire.Client(sys.argv[1], model="tiny") as client:
                    stream = client.stream(itertools.repeat(b"\\xff\\xd8\\xff0001"))
                    next(stream)
                    interrupt = os.kill, (os.getpid(), signal.SIGINT)
                    threading.Timer(random.uniform(0, 0.05), *interrupt).start()
                    for result in stream:
                        pass
            except KeyboardInterrupt:
                print("interrupted")
        """,
        server.target,
        timeout=40,
    )
    assert said.split() == ["interrupted"] * 8


def test_a_connection_that_does_not_close_keeps_no_other_from_closing():
    class Hanging:
        def close(self) -> None:
            release.wait(60)

    class Healthy:
        def close(self) -> None:
            closed.set()

    release, closed = threading.Event(), threading.Event()
    try:
        close_all([Hanging(), Healthy()])
        assert closed.is_set()
    finally:
        release.set()


def test_streams_of_one_client_in_several_threads_do_not_mix(server):
    """Streams of one client do not mix."""
    from concurrent.futures import ThreadPoolExecutor

    with featurewire.Client(
        server.target, model="tiny", stream=StreamConfig(images_per_request=3)
    ) as client:

        def keys(start: int) -> list[int]:
            pairs = ((number, image(number)) for number in range(start, start + 100))
            return [result.key for result in client.stream(pairs)]

        with ThreadPoolExecutor(6) as pool:
            for start, got in zip(
                range(0, 600, 100), pool.map(keys, range(0, 600, 100)), strict=True
            ):
                assert got == list(range(start, start + 100))
