"""Fetching modules from an imitation of the hub, from archives and from folders."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from featurewire_exporter.errors import ModuleError
from featurewire_exporter.progress import Progress
from featurewire_exporter.source import fetch as sources
from featurewire_exporter.source import hub as hub_source
from tests.exporter.source.hub_server import archive_of, archive_with, running_hub
from tests.support import warm
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The cache, empty."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(handle: str, scratch: Path, **options) -> sources.Source:
    scratch.mkdir(exist_ok=True)
    return sources.fetch(str(handle), scratch, Progress(None), **options)


def refusal(handle: str, tmp_path: Path) -> str:
    with pytest.raises(ModuleError) as caught:
        fetch(handle, tmp_path / "scratch")
    text = str(caught.value)
    assert "\n" not in text
    assert str(handle) in text
    return text


def files(directory: str | Path) -> dict[str, bytes]:
    root = Path(directory)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("path", ["/plain/1", "/moved/plain/2", "/slow/1"])
def test_a_handle_is_downloaded_through_redirects_and_slowly(hub, tf1_module, tmp_path, path):
    hub.serve(path.replace("/moved", ""), archive_of(tf1_module))

    source = fetch(hub.url + path, tmp_path / "scratch")

    assert files(source.directory) == files(tf1_module)
    assert (source.handle, source.stand_in) == (hub.url + path, False)


def test_a_handle_is_asked_for_in_the_compressed_format(hub, tf1_module, tmp_path):
    fetch(hub.serve("/asked/1", archive_of(tf1_module)), tmp_path / "scratch")

    assert "/asked/1?tf-hub-format=compressed" in hub.requests


def test_the_second_fetch_comes_from_the_cache(hub, tf1_module, tmp_path):
    handle = hub.serve("/cached/1", archive_of(tf1_module))
    first = fetch(handle, tmp_path / "scratch")
    asked = len(hub.requests)

    assert fetch(handle, tmp_path / "scratch").directory == first.directory
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/broken/1", "stopped after"),
        ("/chunked/1", "truncated|not an intact tar"),
        ("/missing/1", "answers 404"),
    ],
)
def test_a_failed_download_is_one_line_and_caches_nothing(
    hub, tf1_module, tmp_path, cache, path, text
):
    if "missing" not in path:
        hub.serve(path, archive_of(tf1_module))

    assert re.search(text, refusal(hub.url + path, tmp_path))
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_module_is_whole_after_a_transfer_that_broke_off(hub, tf1_module, tmp_path):
    handle = hub.serve("/broken/again", archive_of(tf1_module))
    refusal(handle, tmp_path)
    hub.archives["/plain/again"] = hub.archives.pop("/broken/again")

    source = fetch(f"{hub.url}/plain/again", tmp_path / "scratch")
    assert files(source.directory) == files(tf1_module)


def test_a_transfer_that_breaks_off_between_members_is_noticed(hub, tf1_module, tmp_path):
    """The received part of the archive looks complete; only its end is missing."""
    whole = archive_of(tf1_module)
    tar = gzip.decompress(whole)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        boundary = archive.getmembers()[-1].offset
    compressor = zlib.compressobj(wbits=31)
    part = compressor.compress(tar[:boundary]) + compressor.flush(2)

    text = refusal(hub.serve("/plain/boundary", part), tmp_path)
    assert "truncated" in text


FETCH = """if True:
    import sys
    from pathlib import Path
    from featurewire_exporter.progress import Progress
    from featurewire_exporter.source.fetch import fetch
    print(fetch(sys.argv[1], Path(sys.argv[2]), Progress(None)).directory)
"""


@contextmanager
def fetching(handle: str, tmp_path: Path, cache: Path) -> Iterator[Any]:
    """Another process in the middle of a download."""
    argv = ["-c", FETCH, handle, str(tmp_path)]
    with warm.start(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: any(each.is_dir() for each in cache.glob("*")))
            yield process
        finally:
            process.kill()


def test_a_download_that_was_killed_does_not_hold_up_the_next(hub, tf1_module, tmp_path, cache):
    handle = hub.serve("/held/killed", archive_of(tf1_module))
    with fetching(handle, tmp_path, cache) as process:
        process.kill()
        process.wait()
        left = [each for each in cache.iterdir() if each.is_dir()]
    hub.aliases["/held/killed"] = "/plain/killed"
    hub.archives["/plain/killed"] = hub.archives["/held/killed"]

    source = fetch(handle, tmp_path / "scratch")
    assert files(source.directory) == files(tf1_module)
    assert left
    assert [each for each in cache.iterdir() if each.is_dir()] == [Path(source.directory)]


def test_a_download_that_goes_on_elsewhere_is_waited_for(hub, tf1_module, tmp_path, cache):
    handle = hub.serve("/held/waited", archive_of(tf1_module))
    said = io.StringIO()
    with fetching(handle, tmp_path, cache) as process, ThreadPoolExecutor() as threads:
        here = threads.submit(sources.fetch, handle, tmp_path, Progress(said))
        wait_until(lambda: f"Waiting for another download of {handle}" in said.getvalue())
        hub.release.set()
        directory = process.stdout.read().strip()

    assert here.result().directory == directory
    assert files(directory) == files(tf1_module)
    assert sum("/held/waited" in each for each in hub.requests) == 1


def test_a_module_in_tensorflow_hubs_cache_is_not_downloaded(hub, tf1_module, tmp_path, cache):
    handle = f"{hub.url}/never/served"
    directory = cache / hashlib.sha1(handle.encode()).hexdigest()
    shutil.copytree(tf1_module, directory)

    assert fetch(handle, tmp_path / "scratch").directory == str(directory)


@pytest.mark.parametrize("handle", ["http://[::1", "http://h\u00f6st\u2024/\u00e4"])
def test_an_address_that_is_none_is_one_line(tmp_path, handle):
    assert re.search("is not a valid URL|cannot be reached", refusal(handle, tmp_path))


def test_the_scheme_of_an_address_may_be_in_capitals(hub, tf1_module, tmp_path):
    handle = hub.serve("/plain/capitals", archive_of(tf1_module)).replace("http:", "HTTP:")
    assert files(fetch(handle, tmp_path / "scratch").directory) == files(tf1_module)


def test_a_silent_server_is_given_up(hub, tf1_module, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_source, "TIMEOUT_SECONDS", 0.3)
    handle = hub.serve("/silent/1", archive_of(tf1_module))

    assert "cannot be reached" in refusal(handle, tmp_path)


def test_an_address_where_nobody_listens_is_one_line(tmp_path):
    assert "cannot be reached" in refusal("http://127.0.0.1:1/module", tmp_path)


def test_a_host_that_does_not_exist_is_one_line(tmp_path):
    assert "cannot be reached" in refusal("https://nowhere.invalid/module/1", tmp_path)


@pytest.mark.parametrize(
    ("archive", "text"),
    [
        (b"<html>Sign in to continue</html>" * 100, "not an intact tar archive"),
        (b"", "not an intact tar archive"),
        (archive_with("readme.txt"), r"no saved_model\.pb"),
        (archive_with("../evil"), r"'\.\./evil' would be written outside"),
        (archive_with("a/../../evil"), "would be written outside"),
        (archive_with("/tmp/evil"), "'/tmp/evil' would be written outside"),
        (archive_with("link", b"", type=tarfile.SYMTYPE, linkname="/etc"), "not a plain file"),
        (
            archive_with("link", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
            "not a plain file",
        ),
        (archive_with("device", b"", type=tarfile.CHRTYPE), "not a plain file"),
        (archive_with("."), r"its member '\.' cannot be written"),
        (archive_with("a" * 300), "cannot be written"),
        (lzma.compress(b"x" * 20_000)[:-100], "truncated|not an intact tar"),
    ],
    ids=[
        "page",
        "nothing",
        "no module",
        "up",
        "up inside",
        "absolute",
        "link",
        "hard",
        "device",
        "dot",
        "long name",
        "xz",
    ],
)
@pytest.mark.parametrize("way", ["http", "file"])
def test_an_archive_that_is_no_module_is_refused(hub, tmp_path, cache, archive, text, way):
    if way == "http":
        handle = hub.serve(f"/evil/{abs(hash(archive))}", archive)
    else:
        handle = tmp_path / "module.tar.gz"
        handle.write_bytes(archive)

    assert re.search(text, refusal(handle, tmp_path))
    assert not Path("/tmp/evil").exists()
    assert not list(tmp_path.rglob("evil"))
    if way == "http":
        assert not [entry for entry in cache.iterdir() if entry.is_dir()]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar", "w")])
def test_a_local_archive_is_unpacked(tf1_module, tmp_path, suffix, mode):
    path = tmp_path / f"module{suffix}"
    path.write_bytes(archive_of(tf1_module, mode=mode))

    assert files(fetch(path, tmp_path / "scratch").directory) == files(tf1_module)


def test_an_archive_may_hold_the_module_in_one_folder(tf1_module, tmp_path):
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        archive.add(tf1_module, arcname="feature_vector_1")

    source = fetch(tmp_path / "m.tar.gz", tmp_path / "scratch")
    assert files(source.directory) == files(tf1_module)


def _archive_of_folders(module: Path, path: Path, *folders: str) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for folder in folders:
            archive.add(module, folder)
    return str(path)


def test_a_module_is_found_in_nested_folders(tf1_module, tmp_path):
    path = _archive_of_folders(tf1_module, tmp_path / "m.tar.gz", "models/inception/1")

    assert files(fetch(path, tmp_path / "scratch").directory) == files(tf1_module)


@pytest.mark.parametrize("folders", [("a", "b"), ("x/1", "x/2", "y/1", "y/2")])
def test_an_archive_of_several_modules_is_refused_with_their_folders(tf1_module, tmp_path, folders):
    text = refusal(_archive_of_folders(tf1_module, tmp_path / "m.tgz", *folders), tmp_path)

    assert f"holds {len(folders)} modules ({', '.join(folders[:3])}" in text
    assert "scratch" not in text


def test_a_download_with_a_nested_module_says_where_it_lies(hub, tf1_module, tmp_path, cache):
    path = _archive_of_folders(tf1_module, tmp_path / "m.tar.gz", "deep/1")
    text = refusal(hub.serve("/nested/1", Path(path).read_bytes()), tmp_path)

    assert "in the folder deep/1; download it and give the .tar.gz itself" in text
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_truncated_local_archive_is_refused(tf1_module, tmp_path):
    path = tmp_path / "module.tar.gz"
    path.write_bytes(archive_of(tf1_module)[:-2000])

    assert "truncated" in refusal(path, tmp_path)


def test_a_folder_is_used_where_it_is(tf1_module, tmp_path):
    assert fetch(tf1_module, tmp_path / "scratch").directory == str(tf1_module)


def test_a_path_that_is_no_module_says_what_can_be_given(tmp_path):
    assert "https:// handle" in refusal(tmp_path / "nothing" / "here", tmp_path)


@pytest.mark.parametrize("name", ["a.ckpt", "b.ckpt", "b.ckpt.index", "c-7", "c-7.meta"])
def test_a_checkpoint_hints_at_the_option_for_it(tmp_path, name):
    for file in ("a.ckpt", "b.ckpt.index", "b.ckpt.data-00000-of-00001", "c-7.meta"):
        (tmp_path / file).write_bytes(b"x")
    prefix = tmp_path / name.removesuffix(".index").removesuffix(".meta")
    assert f"give {prefix} with --from slim-checkpoint" in refusal(tmp_path / name, tmp_path)


def test_a_bucket_is_read_through_tensorflows_file_system(monkeypatch, tmp_path):
    """Tests cannot reach a bucket, so this checks only that `gs://` uses TensorFlow's file
    system."""
    asked = []

    def exists(path: str) -> bool:
        asked.append(path)
        return True

    monkeypatch.setattr(tf.io.gfile, "exists", exists)

    source = fetch("gs://bucket/module/", tmp_path / "scratch")
    assert source.directory == "gs://bucket/module"
    assert asked == ["gs://bucket/module/saved_model.pb"]


def test_progress_of_a_download_is_a_bar_on_a_terminal(hub, tf1_module, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    archive = archive_of(tf1_module)
    sources.fetch(hub.serve("/slow/bar", archive), tmp_path, Progress(terminal))

    assert f"{len(archive) / 1e6:.1f} of {len(archive) / 1e6:.1f} MB" in terminal.getvalue()
    assert "[####################]" in terminal.getvalue()
