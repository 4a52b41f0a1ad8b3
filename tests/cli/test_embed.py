"""`featurewire embed` as a process, with a fake TensorFlow Serving."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

from featurewire import _images
from featurewire._cli.embed import embed as run
from tests.cli.conftest import jpeg
from tests.cli.fake_serving import FakeServing, Version, vector_of
from tests.support.process import free_port


@pytest.fixture
def embed(command, server):
    """Run `featurewire embed ARGUMENTS` against the fake server."""

    def run(*arguments: object, **options):
        return command("embed", *arguments, "--server", server.target, "--model", "tiny", **options)

    return run


def index_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("images")
def test_a_folder_becomes_an_array_and_its_index(embed, tmp_path):
    shown = embed("photos", "--output", "out.npy")
    assert (shown.returncode, shown.stdout) == (0, "")
    array, index = np.load(tmp_path / "out.npy"), index_of(tmp_path / "out.jsonl")
    assert (array.dtype, array.shape) == (np.float32, (12, 8))
    paths = [f"photos/a/{n:02}.jpg" for n in range(6)]
    paths += [f"photos/b/c/{n:02}.jpg" for n in range(6, 12)]
    assert index == [
        {"row": row, "path": path, "model": "tiny", "version": 1} for row, path in enumerate(paths)
    ]
    for row in range(12):
        assert array[row].tolist() == vector_of(jpeg(row)).tolist()
    assert shown.stderr.startswith(
        "featurewire embed: out.npy and out.jsonl: 12 rows, 12 of them new; "
    )
    assert len(shown.stderr.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.npy", "photos"]


@pytest.mark.usefixtures("images")
def test_lines_of_json_carry_their_vectors(embed, tmp_path, server):
    server.versions[1] = Version(vector_space="space-1")
    assert embed("photos/a", "--output", "out.jsonl").returncode == 0
    rows = index_of(tmp_path / "out.jsonl")
    assert [row["path"] for row in rows] == [f"photos/a/{n:02}.jpg" for n in range(6)]
    assert {row["vector_space"] for row in rows} == {"space-1"}
    for number, row in enumerate(rows):
        assert np.float32(row["vector"]).tolist() == vector_of(jpeg(number)).tolist()


@pytest.mark.usefixtures("images")
def test_a_parquet_file_holds_the_vectors_as_lists_of_one_length(embed, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert embed("photos", "--output", "out.parquet").returncode == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 8)
    vectors = table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, 8)
    assert np.array_equal(vectors, [vector_of(jpeg(number)) for number in range(12)])
    assert table.column("path")[7].as_py() == "photos/b/c/07.jpg"
    assert sorted(os.listdir(tmp_path)) == ["out.parquet", "photos"]


@pytest.mark.usefixtures("images")
def test_parquet_without_pyarrow_says_how_to_get_it(embed, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pyarrow.py").write_text("raise ImportError('not here')\n")
    shown = embed(
        "photos",
        "--output",
        "out.parquet",
        environment={"PYTHONPATH": str(tmp_path / "hidden")},
    )
    assert shown.returncode == 1
    assert shown.stderr == (
        "featurewire embed: .parquet needs pyarrow; pip install pyarrow, or use .npy or .jsonl\n"
    )


def test_images_that_fail_are_listed_and_the_others_kept(embed, images, tmp_path):
    (images / "a" / "02.jpg").write_bytes(b"no image at all")
    (images / "b" / "c" / "08.jpg").write_bytes(b"")
    (images / "a" / "03.jpg").unlink()
    (images / "a" / "03.jpg").symlink_to("gone.jpg")
    shown = embed("photos", "--output", "out.npy")
    assert shown.returncode == 1
    *failed, summary = shown.stderr.splitlines()
    assert sorted(line.split(": ")[1:3] for line in failed) == [
        ["photos/a/02.jpg", "unsupported"],
        ["photos/a/03.jpg", "no such file or directory"],
        ["photos/b/c/08.jpg", "empty"],
    ]
    assert "9 rows, 9 of them new; 3 failed (" in summary
    assert np.load(tmp_path / "out.npy").shape == (9, 8)
    kept = [int(Path(entry["path"]).stem) for entry in index_of(tmp_path / "out.jsonl")]
    assert kept == [0, 1, 4, 5, 6, 7, 9, 10, 11]


def test_when_every_image_fails_nothing_is_written(embed, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    shown = embed("a.txt", "--output", "out.npy")
    assert shown.returncode == 1
    assert shown.stderr.splitlines()[-1] == (
        "featurewire embed: no image gave a vector (1 failed (1 unsupported))"
    )
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_without_images_fails_and_names_the_skipped_files(embed, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    shown = embed("texts", "--output", "out.jsonl")
    assert shown.returncode == 1
    assert shown.stderr == (
        "featurewire embed: nothing to embed: no images found; 1 other files skipped (1 .txt)\n"
    )
    assert os.listdir(tmp_path) == ["texts"]


@pytest.mark.usefixtures("images")
def test_a_list_on_standard_input(embed, tmp_path):
    text = "photos/a/03.jpg\n\nphotos/b\nphotos/a/03.jpg\nmissing.jpg\n"
    shown = embed("-", "--output", "out.jsonl", input=text)
    assert shown.returncode == 1
    assert "featurewire embed: missing.jpg: no such file or directory" in shown.stderr
    assert "1 paths given twice" in shown.stderr
    assert [Path(row["path"]).stem for row in index_of(tmp_path / "out.jsonl")] == [
        "03",
        *(f"{number:02}" for number in range(6, 12)),
    ]


def test_names_of_any_bytes(embed, tmp_path):
    names = [b"line\nbreak.jpg", b"caf\xe9.jpg", "café.jpg".encode(), b'quote".jpg']
    for number, name in enumerate(names):
        (tmp_path / os.fsdecode(name)).write_bytes(jpeg(number))
    shown = embed("-", "--null", "--output", "out.npy", input=b"\0".join(names))
    assert shown.returncode == 0, shown.stderr
    assert [entry["path"] for entry in index_of(tmp_path / "out.jsonl")] == [
        "line\nbreak.jpg",
        "caf\\xe9.jpg",
        "café.jpg",
        'quote".jpg',
    ]
    again = embed(
        "-", "-0", "--resume", "--output", "out.npy", input=b"\0".join([*names, b"bad\n.jpg"])
    )
    assert again.returncode == 1
    lines = again.stderr.decode().splitlines()
    assert lines[0] == "featurewire embed: bad\\n.jpg: no such file or directory"
    assert "4 rows, 0 of them new" in lines[1]


@pytest.mark.usefixtures("images")
def test_what_is_no_file_is_listed_and_never_waited_for(embed, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    shown = embed("pipe.jpg", "photos/a", "--output", "out.jsonl")
    assert shown.returncode == 1
    assert shown.stderr.splitlines()[0] == "featurewire embed: pipe.jpg: not a regular file"
    assert len(index_of(tmp_path / "out.jsonl")) == 6


def test_quiet_lists_failures_only(embed, images):
    assert embed("photos/a", "--output", "a.npy", "--quiet").stderr == ""
    (images / "a" / "02.jpg").write_bytes(b"no image at all")
    shown = embed("photos/a", "--output", "b.npy", "--quiet")
    assert shown.returncode == 1
    assert [line.split(": ")[1] for line in shown.stderr.splitlines()] == ["photos/a/02.jpg"]


@pytest.mark.usefixtures("images")
def test_the_version_or_label_that_was_asked_for_answers(embed, tmp_path, server):
    server.versions = {1: Version(), 2: Version(), 3: Version()}
    server.labels = {"stable": 2}
    server.current = 3
    for name, options, version in [
        ("latest", [], 3),
        ("one", ["--version", "1"], 1),
        ("label", ["--label", "stable"], 2),
    ]:
        shown = embed("photos/a", "--output", f"{name}.npy", *options)
        assert shown.returncode == 0, shown.stderr
        assert {entry["version"] for entry in index_of(tmp_path / f"{name}.jsonl")} == {version}
        first = np.load(tmp_path / f"{name}.npy")[0]
        assert first.tolist() == vector_of(jpeg(0), version).tolist()


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.usefixtures("images")
def test_an_output_that_exists_is_refused_and_untouched(embed, tmp_path, suffix):
    (tmp_path / f"out{suffix}").write_text("mine")
    shown = embed("photos", "--output", f"out{suffix}")
    assert shown.returncode == 2
    assert shown.stderr == (
        f"featurewire embed: out{suffix} exists; --resume continues it, --overwrite replaces "
        "it; see featurewire embed --help\n"
    )
    assert (tmp_path / f"out{suffix}").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.usefixtures("images")
def test_overwrite_replaces_and_resume_extends(embed, suffix, server):
    output = f"out{suffix}"
    assert embed("photos/a", "--output", output).returncode == 0
    assert embed("photos/b", "--output", output, "--overwrite").returncode == 0
    server.seen.clear()
    shown = embed("photos", "--output", output, "--resume")
    assert shown.returncode == 0
    assert "12 rows, 6 of them new" in shown.stderr
    assert server.answered == 6
    again = embed("photos", "--output", output, "--resume")
    assert again.returncode == 0
    assert "12 rows, 0 of them new" in again.stderr
    assert server.answered == 6


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
@pytest.mark.usefixtures("images")
def test_the_index_of_an_array_is_left_to_its_array(embed, tmp_path, option):
    assert embed("photos/a", "--output", "out.npy").returncode == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    shown = embed("photos", "--output", "out.jsonl", option)
    assert shown.returncode == 2
    assert shown.stderr == (
        "featurewire embed: out.jsonl is the index of out.npy; choose another --output; "
        "see featurewire embed --help\n"
    )
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert embed("photos", "--output", "out.npy", "--resume").returncode == 0


def test_an_image_that_failed_is_tried_again_by_resume(embed, images, tmp_path):
    (images / "a" / "02.jpg").write_bytes(b"no image yet")
    assert embed("photos/a", "--output", "out.npy").returncode == 1
    (images / "a" / "02.jpg").write_bytes(jpeg(2))
    assert embed("photos/a", "--output", "out.npy", "--resume").returncode == 0
    assert [Path(entry["path"]).stem for entry in index_of(tmp_path / "out.jsonl")][-1] == "02"
    assert np.load(tmp_path / "out.npy")[5].tolist() == vector_of(jpeg(2)).tolist()


@pytest.mark.usefixtures("images")
def test_a_server_that_only_knows_predict_is_served(embed, tmp_path, server):
    server.knows_metadata = False
    shown = embed("photos/a", "--output", "out.npy")
    assert shown.returncode == 0, shown.stderr
    assert {entry["version"] for entry in index_of(tmp_path / "out.jsonl")} == {1}


@pytest.mark.usefixtures("images")
def test_a_link_as_output_stays_a_link(embed, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.jsonl").symlink_to("elsewhere/real.jsonl")
    assert embed("photos/a", "--output", "out.jsonl").returncode == 0
    assert (tmp_path / "out.jsonl").is_symlink()
    assert len(index_of(tmp_path / "elsewhere" / "real.jsonl")) == 6


def with_room_for(size: int) -> list[str]:
    """A command that runs another one with a limit on the size of its files."""
    code = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code]


@pytest.mark.usefixtures("images")
def test_a_disk_that_is_full_at_the_end_costs_no_row(embed, tmp_path):
    """A .parquet file is written from the journal at the end."""
    assert embed("photos/a", "--output", "size.parquet").returncode == 0
    room = (tmp_path / "size.parquet").stat().st_size - 1
    shown = embed("photos/a", "--output", "out.parquet", before=with_room_for(room))
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1
    assert "6 rows are in out.parquet" in shown.stderr
    assert not (tmp_path / "out.parquet").exists()
    assert not list(tmp_path.glob("*.tmp"))
    assert embed("photos/a", "--output", "out.parquet", "--resume").returncode == 0


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.usefixtures("images")
def test_a_disk_full_before_the_first_row_leaves_the_output_alone(embed, tmp_path, suffix):
    assert embed("photos/a", "--output", f"out{suffix}").returncode == 0
    before = sorted(os.listdir(tmp_path))
    shown = embed("photos", "--output", f"out{suffix}", "--resume", before=with_room_for(60))
    assert shown.returncode == 1
    assert "File too large" in shown.stderr
    assert sorted(os.listdir(tmp_path)) == before
    assert embed("photos", "--output", f"out{suffix}", "--resume").returncode == 0


@pytest.mark.parametrize(("closed", "status"), [("<&-", 0), ("2>&-", 0), ("<&- 2>&-", 0)])
@pytest.mark.usefixtures("images")
def test_closed_streams_cost_nothing(embed, tmp_path, closed, status):
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    shown = embed("photos/a", "--output", "out.npy", before=shell)
    assert (shown.returncode, shown.stderr.count("error")) == (status, 0)
    assert len(np.load(tmp_path / "out.npy")) == 6


def test_a_list_on_a_closed_standard_input_is_wrong_usage(embed):
    shown = embed("-", "--output", "out.npy", before=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert shown.returncode == 2
    assert "standard input is closed" in shown.stderr


def test_two_names_that_look_alike_are_two_images(embed, tmp_path):
    names = [b"a\xff.jpg", b"a\\xff.jpg"]
    for number, name in enumerate(names):
        (tmp_path / os.fsdecode(name)).write_bytes(jpeg(number))
    assert embed(*map(os.fsdecode, names), "--output", "out.jsonl").returncode == 0
    rows = index_of(tmp_path / "out.jsonl")
    assert [row["path"] for row in rows] == ["a\\xff.jpg", "a\\x5cxff.jpg"]
    again = embed(*map(os.fsdecode, names), "--output", "out.jsonl", "--resume")
    assert "0 of them new" in again.stderr


def test_a_path_behind_a_link_leads_where_the_system_leads(embed, tmp_path):
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    (tmp_path / "x.jpg").write_bytes(jpeg(1))
    (tmp_path / "real" / "x.jpg").write_bytes(jpeg(2))
    assert embed("link/../x.jpg", "--output", "out.jsonl").returncode == 0
    (row,) = index_of(tmp_path / "out.jsonl")
    assert np.float32(row["vector"]).tolist() == vector_of(jpeg(2)).tolist()


def test_a_name_that_begins_with_a_dash_stands_behind_two(command, server, tmp_path):
    (tmp_path / "-x.jpg").write_bytes(jpeg(1))
    options = ["--output", "out.npy", "--server", server.target, "--model", "tiny"]
    assert command("embed", *options, "--", "-x.jpg").returncode == 0
    assert index_of(tmp_path / "out.jsonl")[0]["path"] == "-x.jpg"
    without = command("embed", *options)
    assert without.returncode == 2
    assert "required: PATH" in without.stderr


def test_an_address_is_no_path(embed):
    shown = embed("https://example.com/a.jpg", "--output", "out.npy")
    assert shown.returncode == 2
    assert "download it and give the file" in shown.stderr


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
@pytest.mark.usefixtures("images")
def test_a_full_disk_ends_the_run_and_resume_goes_on(embed, tmp_path, suffix):
    shown = embed("photos", "--output", f"out{suffix}", before=with_room_for(400))
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1
    assert f"out{suffix}: File too large; " in shown.stderr
    assert f"rows are in out{suffix}.partial, --resume continues them" in shown.stderr
    assert not (tmp_path / f"out{suffix}").exists()
    rest = embed("photos", "--output", f"out{suffix}", "--resume")
    assert rest.returncode == 0, rest.stderr
    paths = [entry["path"] for entry in index_of(tmp_path / "out.jsonl")]
    assert len(paths) == len(set(paths)) == 12
    if suffix == ".npy":
        numbers = [int(Path(path).stem) for path in paths]
        assert np.array_equal(
            np.load(tmp_path / "out.npy"), [vector_of(jpeg(number)) for number in numbers]
        )


class TestVectorsThatDoNotCompare:
    @pytest.mark.usefixtures("images")
    def test_another_version_on_resume_is_refused(self, embed, tmp_path, server):
        assert embed("photos/a", "--output", "out.npy").returncode == 0
        before = (tmp_path / "out.npy").read_bytes()
        server.versions[2] = Version()
        server.current = 2
        shown = embed("photos", "--output", "out.npy", "--resume")
        assert shown.returncode == 1
        assert shown.stderr == (
            "featurewire embed: the server answers with version 2 of tiny, the rows already "
            "written are of version 1 of tiny: they cannot be compared (judged by version number, "
            "because without a manifest the vector space is unknown); ask for --version 1, or "
            "choose another --output\n"
        )
        assert (tmp_path / "out.npy").read_bytes() == before
        pinned = embed("photos", "--output", "out.npy", "--resume", "--version", "1")
        assert pinned.returncode == 0

    @pytest.mark.usefixtures("images")
    def test_another_version_of_the_same_vector_space_is_taken(self, embed, tmp_path, server):
        server.versions = {1: Version(vector_space="same"), 2: Version(vector_space="same")}
        assert embed("photos/a", "--output", "out.npy").returncode == 0
        server.current = 2
        assert embed("photos", "--output", "out.npy", "--resume").returncode == 0
        versions = [entry["version"] for entry in index_of(tmp_path / "out.jsonl")]
        assert versions == [1] * 6 + [2] * 6

    @pytest.mark.usefixtures("images")
    def test_the_same_version_number_of_another_vector_space_is_refused(self, embed, server):
        server.versions = {1: Version(vector_space="before")}
        assert embed("photos/a", "--output", "out.jsonl").returncode == 0
        server.versions = {1: Version(vector_space="after")}
        shown = embed("photos", "--output", "out.jsonl", "--resume")
        assert shown.returncode == 1
        assert "(vector space after)" in shown.stderr
        assert "version number" not in shown.stderr
        assert server.answered == 6
        assert shown.stderr.endswith("they cannot be compared; choose another --output\n")

    def test_a_version_change_ends_the_run_and_keeps_finished_rows(self, command, tmp_path):
        for number in range(300):
            (tmp_path / f"{number:03}.jpg").write_bytes(jpeg(number))

        class Changing(FakeServing):
            def _predict(self, request, context):
                if self.answered >= 100:
                    self.versions[2], self.current = Version(), 2
                return super()._predict(request, context)

        server = Changing(seconds_per_image=0.001).start()
        server.versions = {1: Version()}
        try:
            shown = command(
                *("embed", ".", "--output", "out.npy"),
                *("--server", server.target, "--model", "tiny"),
            )
            assert shown.returncode == 1
            assert "version 2 of tiny" in shown.stderr
            assert "rows are in out.npy.partial, --resume continues them" in shown.stderr
            rest = command(
                *("embed", ".", "--output", "out.npy", "--resume", "--version", "1"),
                *("--server", server.target, "--model", "tiny"),
            )
            assert rest.returncode == 0, rest.stderr
        finally:
            server.stop()
        assert {entry["version"] for entry in index_of(tmp_path / "out.jsonl")} == {1}
        assert len(np.load(tmp_path / "out.npy")) == 300


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere", "--output", "o.npy"], "nowhere: no such file or directory, and no"),
            (["*.gif", "--output", "o.npy"], "*.gif: no such file or directory, and no file"),
            ([".", "--output", "o.csv"], "o.csv must end in one of .npy, .parquet, .jsonl"),
            ([".", "--output", "no/o.npy"], "no is not a directory; create it first"),
            (["."], "the following arguments are required: --output"),
            ([".", "--output", "o.npy", "--resume", "--overwrite"], "not allowed with"),
            ([".", "--output", "o.npy", "--version", "0"], "'0' is not a positive whole number"),
            ([".", "--output", "o.npy", "--timeout", "0"], "is not a number of seconds above 0"),
            (
                [".", "--output", "o.npy", "--tls-cert", "c"],
                "--tls-cert and --tls-key must be given",
            ),
            ([".", "--output", "o.npy", "--token-file", "t"], "--token-file t: No such file"),
            ([".", "--output", "o.npy", "--tls-ca", "ca.pem"], "cannot read ca.pem: No such file"),
            (
                [".", "--output", "o.npy", "--tls-server-name", "a"],
                "--tls-server-name needs --tls or --tls-ca FILE",
            ),
        ],
    )
    def test_wrong_usage_is_one_line_and_status_2(self, embed, tmp_path, arguments, message):
        shown = embed(*arguments)
        assert shown.returncode == 2
        assert message in shown.stderr
        assert shown.stderr.endswith("; see featurewire embed --help\n")
        assert len(shown.stderr.splitlines()) == 1
        assert os.listdir(tmp_path) == []

    @pytest.mark.usefixtures("images")
    def test_a_model_that_is_not_there(self, command, server, tmp_path):
        shown = command(
            *("embed", "photos", "--output", "out.npy"),
            *("--server", server.target, "--model", "other"),
        )
        assert shown.returncode == 1
        assert "other" in shown.stderr
        assert len(shown.stderr.splitlines()) == 1
        assert os.listdir(tmp_path) == ["photos"]

    @pytest.mark.usefixtures("images")
    def test_a_server_that_is_not_there(self, command, tmp_path):
        target = f"127.0.0.1:{free_port()}"
        shown = command(
            *("embed", "photos", "--output", "out.npy", "--timeout", "2"),
            *("--server", target, "--model", "tiny"),
        )
        assert shown.returncode == 1
        assert target in shown.stderr
        assert len(shown.stderr.splitlines()) == 1
        assert os.listdir(tmp_path) == ["photos"]

    @pytest.mark.usefixtures("images")
    def test_a_server_that_refuses_every_image_ends_the_run(self, embed, server, tmp_path):
        server.predict_error = (grpc.StatusCode.INTERNAL, "out of order")
        shown = embed("photos", "--output", "out.npy", "--timeout", "5")
        assert shown.returncode == 1
        assert "out of order" in shown.stderr
        assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.usefixtures("images")
def test_a_file_that_never_gives_its_bytes_ends_with_the_timeout(
    server, tmp_path, monkeypatch, capsys
):
    """Runs in this process, so that reading can be made to hang."""
    gate, read = threading.Event(), _images.read_file

    def read_file(path):
        if str(path).endswith("02.jpg"):
            gate.wait(60)
        return read(path)

    monkeypatch.setattr(_images, "read_file", read_file)
    monkeypatch.chdir(tmp_path)
    where = ("--server", server.target, "--model", "tiny")
    status = run(["photos/a", "--output", "out.npy", "--timeout", "2", *where])
    gate.set()
    told = capsys.readouterr().err.splitlines()
    assert status == 1
    assert told[0] == (
        "featurewire embed: photos/a/02.jpg: the file was not read within 2 s; raise --timeout or "
        "check the disk"
    )
    assert "5 rows" in told[1]
