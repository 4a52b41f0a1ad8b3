"""What is in a file after a kill at any moment, for each kind of output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from featurewire._cli.journal import Journal, OutputError, npy_header
from featurewire._cli.outputs import Output, check_free, output_for
from featurewire._cli.rows import NotARow, Origin, decode, encode

ONE = Origin(model="tiny", version=1, vector_space="space-1")
BARE = Origin(model="tiny", version=1, vector_space=None)
KINDS = [".npy", ".jsonl", ".parquet"]


def vector(number: int) -> np.ndarray:
    return np.arange(4, dtype=np.float32) / 3 + number


def append(output: Output, *numbers: int, close: bool = True) -> Journal:
    journal = output.journal()
    for number in numbers:
        journal.append(f"{number}.jpg", ONE, vector(number))
    if close:
        journal.close()
    return journal


def loaded(output: Output) -> list[str]:
    paths: list[str] = []
    assert output.load(lambda path, origin: paths.append(path)) == len(paths)
    return paths


def rows_of(path: Path) -> list[tuple[str, list[float]]]:
    """Paths and vectors of a published file, read without our code."""
    if path.suffix == ".npy":
        index = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        assert [entry["row"] for entry in index] == list(range(len(index)))
        array = np.load(path)
        assert array.dtype == np.float32
        return [(entry["path"], row.tolist()) for entry, row in zip(index, array, strict=True)]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(path).to_pylist()
        assert {row["vector_space"] for row in rows} <= {"space-1"}
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["path"], np.float32(row["vector"]).tolist()) for row in rows]


def expected(*numbers: int) -> list[tuple[str, list[float]]]:
    return [(f"{number}.jpg", vector(number).tolist()) for number in numbers]


@pytest.mark.parametrize("suffix", KINDS)
def test_rows_come_back_exactly(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    output = output_for(path)
    append(output, 0, 1, 2)
    assert not path.exists()
    output.publish()
    assert rows_of(path) == expected(0, 1, 2)
    beside = {"out.jsonl", "out.npy"} if suffix == ".npy" else {path.name}
    assert {entry.name for entry in tmp_path.iterdir()} == beside


@pytest.mark.parametrize("suffix", KINDS)
def test_a_published_file_is_extended_and_stays_whole_meanwhile(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    append(output_for(path), 0, 1)
    output_for(path).publish()
    output = output_for(path)
    assert loaded(output) == ["0.jpg", "1.jpg"]
    append(output, 2)
    assert rows_of(path) == expected(0, 1)
    output.publish()
    assert rows_of(path) == expected(0, 1, 2)


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_a_journal_cut_at_any_byte_loses_only_the_row_that_was_torn(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    append(output_for(path), 0, 1, 2)
    journals = output_for(path).begun()
    whole = {file: file.read_bytes() for file in journals}
    for file in journals:
        ends = [0]
        if file.name.endswith(".npy.partial"):
            ends = [128 + 16 * row for row in range(4)]
        else:
            for line in whole[file].splitlines(keepends=True):
                ends.append(ends[-1] + len(line))
        for cut in range(len(whole[file])):
            for other in journals:
                other.write_bytes(whole[other])
            file.write_bytes(whole[file][:cut])
            kept = max((row for row, end in enumerate(ends) if end <= cut), default=0)
            output = output_for(path)
            assert loaded(output) == [f"{number}.jpg" for number in range(kept)], cut
            append(output, *range(kept, 3))
            assert {each: each.read_bytes() for each in journals} == whole


@pytest.mark.parametrize("suffix", KINDS)
def test_a_second_process_may_not_go_on_with_a_journal_in_use(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    first = output_for(path)
    journal = append(first, 0, close=False)
    with pytest.raises(OutputError, match=r"another process is writing .*; wait for it to end"):
        output_for(path).load(lambda *_: None)
    with pytest.raises(OutputError, match="another process is writing"):
        output_for(path).journal()
    journal.close()
    assert loaded(output_for(path)) == ["0.jpg"]


@pytest.mark.parametrize("suffix", KINDS)
def test_a_second_process_may_not_extend_a_file_that_is_being_extended(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    append(output_for(path), 0)
    output_for(path).publish()
    first = output_for(path)
    loaded(first)
    with pytest.raises(OutputError, match="another process is writing"):
        loaded(output_for(path))


def test_a_kill_between_the_two_renames_of_an_array_loses_nothing(tmp_path):
    path = tmp_path / "out.npy"
    append(output_for(path), 0, 1)
    output_for(path).publish()
    output = output_for(path)
    loaded(output)
    append(output, 2)
    (tmp_path / "out.npy.partial").rename(path)
    again = output_for(path)
    assert loaded(again) == ["0.jpg", "1.jpg", "2.jpg"]
    assert again.begun() == []
    assert rows_of(path) == expected(0, 1, 2)


def test_a_kill_before_a_parquet_files_journal_is_gone_repeats_only_the_writing(tmp_path):
    path = tmp_path / "out.parquet"
    append(output_for(path), 0, 1)
    journals = {file: file.read_bytes() for file in output_for(path).begun()}
    output_for(path).publish()
    for file, data in journals.items():
        file.write_bytes(data)
    again = output_for(path)
    assert loaded(again) == ["0.jpg", "1.jpg"]
    again.publish()
    assert rows_of(path) == expected(0, 1)


def test_an_array_that_was_killed_can_be_loaded_before_it_is_resumed(tmp_path):
    append(output_for(tmp_path / "out.npy"), 0, 1, close=False)
    assert np.load(tmp_path / "out.npy.partial").shape == (0, 4)


@pytest.mark.parametrize("suffix", KINDS)
def test_files_that_are_there_are_refused_unless_one_says_what_to_do(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    append(output_for(path), 0)
    with pytest.raises(OutputError, match=r"left from a run that did not end; --resume"):
        check_free(output_for(path), resume=False, overwrite=False)
    output_for(path).publish()
    with pytest.raises(OutputError, match=r"exists; --resume goes on with it, --overwrite"):
        check_free(output_for(path), resume=False, overwrite=False)
    check_free(output_for(path), resume=True, overwrite=False)
    check_free(output_for(path), resume=False, overwrite=True)


WHAT_TO_DO = [
    {"resume": resume, "overwrite": overwrite}
    for resume, overwrite in [(False, False), (True, False), (False, True)]
]


@pytest.mark.parametrize("what", WHAT_TO_DO)
@pytest.mark.parametrize("content", [b'{"mine": 1}\n', b"{}", encode(0, "a", ONE, vector(0))])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.partial"])
@pytest.mark.parametrize("beside", [[], ["out.npy", "out.npy.partial"]])
def test_what_is_no_index_is_not_replaced_by_one(tmp_path, name, content, beside, what):
    (tmp_path / name).write_bytes(content)
    for array in beside:
        (tmp_path / array).touch()
    if content.endswith(b"\n") or not name.endswith(".partial"):  # else torn off by a kill
        with pytest.raises(OutputError, match=rf"{name} exists and is no index .*; move it away"):
            check_free(output_for(tmp_path / "out.npy"), **what)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("what", WHAT_TO_DO)
def test_the_index_of_an_array_is_no_output_of_lines(tmp_path, what):
    array = output_for(tmp_path / "out.npy")
    append(array, 0, 1)
    with pytest.raises(OutputError, match=r"out.jsonl.partial is the index of .*out.npy.partial;"):
        check_free(output_for(tmp_path / "out.jsonl"), **what)
    array.publish()
    with pytest.raises(OutputError, match=r"out.jsonl is the index of .*out.npy; choose another"):
        check_free(output_for(tmp_path / "out.jsonl"), **what)


def test_lines_beside_an_array_of_something_else_are_gone_on_with(tmp_path):
    (tmp_path / "out.npy").write_bytes(b"mine")
    append(output_for(tmp_path / "out.jsonl"), 0)
    check_free(output_for(tmp_path / "out.jsonl"), resume=True, overwrite=False)
    assert loaded(output_for(tmp_path / "out.jsonl")) == ["0.jpg"]


def test_an_index_that_a_kill_left_without_a_row_is_gone_on_with(tmp_path):
    array = output_for(tmp_path / "out.npy")
    array.journal().close()
    check_free(array, resume=True, overwrite=False)
    (tmp_path / "out.jsonl.partial").write_bytes(b'{"row": 0, "pa')
    check_free(array, resume=True, overwrite=False)
    assert loaded(array) == []


def test_an_index_without_its_array_is_not_gone_on_with(tmp_path):
    (tmp_path / "out.jsonl").write_bytes(encode(0, "a.jpg", ONE))
    with pytest.raises(OutputError, match=r"out.jsonl exists without .*out.npy"):
        output_for(tmp_path / "out.npy").load(lambda *_: None)


@pytest.mark.parametrize("what", WHAT_TO_DO)
@pytest.mark.parametrize("suffix", KINDS)
def test_a_directory_in_the_place_of_an_output_is_refused(tmp_path, suffix, what):
    (tmp_path / f"out{suffix}").mkdir()
    with pytest.raises(OutputError, match=rf"out{suffix} is no regular file; choose another"):
        check_free(output_for(tmp_path / f"out{suffix}"), **what)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.jsonl", b'{"row": 0, "title": "mine"}\n'),
        ("out.jsonl", b"not json\n"),
        ("out.jsonl", b"[1, 2]\n"),
        ("out.jsonl", encode(0, "a.jpg", ONE, vector(0)) + encode(1, "b.jpg", ONE)),
        ("out.parquet", b"PAR0"),
    ],
)
def test_a_file_of_another_program_is_not_gone_on_with(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OutputError, match=r"choose another --output or start over"):
        output_for(tmp_path / name).load(lambda *_: None)
    assert (tmp_path / name).read_bytes() == content


def test_an_array_of_another_program_is_not_gone_on_with(tmp_path):
    np.save(tmp_path / "out.npy", np.zeros((2, 4)))
    (tmp_path / "out.jsonl").write_bytes(encode(0, "a.jpg", ONE) + encode(1, "b.jpg", ONE))
    with pytest.raises(OutputError, match="was not written by featurewire embed"):
        output_for(tmp_path / "out.npy").load(lambda *_: None)


def test_an_array_and_an_index_that_disagree_are_not_gone_on_with(tmp_path):
    append(output_for(tmp_path / "out.npy"), 0, 1)
    output_for(tmp_path / "out.npy").publish()
    (tmp_path / "out.jsonl").write_bytes(encode(0, "0.jpg", ONE))
    with pytest.raises(OutputError, match=r"holds 2 rows and its index .* 1"):
        output_for(tmp_path / "out.npy").load(lambda *_: None)


def test_an_index_with_vectors_is_not_gone_on_with(tmp_path):
    append(output_for(tmp_path / "out.npy"), 0, 1)
    output_for(tmp_path / "out.npy").publish()
    mixed = encode(0, "0.jpg", ONE) + encode(1, "1.jpg", ONE, vector(1))
    (tmp_path / "out.jsonl").write_bytes(mixed)
    with pytest.raises(OutputError, match=r"line 2 of .*out.jsonl was not written"):
        output_for(tmp_path / "out.npy").load(lambda *_: None)


def test_a_vector_of_another_length_is_refused(tmp_path):
    journal = output_for(tmp_path / "out.npy").journal()
    journal.append("a.jpg", ONE, np.zeros(4, np.float32))
    with pytest.raises(OutputError, match=r"answered with 5 floats .* have 4"):
        journal.append("b.jpg", ONE, np.zeros(5, np.float32))
    journal.close()
    assert journal.rows == 1


@pytest.mark.parametrize("rows", [0, 9, 10, 99_999, 10**12])
def test_an_array_header_has_one_length_for_any_number_of_rows(rows):
    header = npy_header(rows, 1536)
    assert len(header) == 128
    assert f"({rows}, 1536)".encode() in header


@pytest.mark.parametrize("suffix", [".txt", "", ".csv", ".NPY"])
def test_an_unknown_suffix_names_the_known_ones(suffix):
    with pytest.raises(ValueError, match=r"none of \.npy, \.parquet, \.jsonl"):
        output_for(Path(f"out{suffix}"))


class TestLines:
    def test_any_float32_comes_back_exactly(self):
        bits = np.random.default_rng(7).integers(0, 2**32, 5000, dtype=np.uint64)
        values = bits.astype(np.uint32).view(np.float32)
        values = values[np.isfinite(values)]
        line = encode(0, "a.jpg", BARE, values)
        read = np.array(json.loads(line)["vector"], np.float64).astype(np.float32)
        assert read.tobytes() == values.tobytes()

    @pytest.mark.parametrize("path", ['a"b.jpg', "a, vector: [.jpg", 'x", "vector": [1', "é\n☃"])
    def test_any_path_comes_back(self, path):
        assert decode(encode(3, path, ONE), vector=False) == (path, ONE)
        assert decode(encode(3, path, ONE, vector(1)), vector=True) == (path, ONE)

    @pytest.mark.parametrize("line", [encode(0, "a", ONE), encode(0, "a", ONE, vector(1))])
    def test_a_row_of_the_other_kind_is_not_a_row(self, line):
        with pytest.raises(NotARow):
            decode(line, vector=b'vector":' not in line)

    @pytest.mark.parametrize("line", [b"", b"{}\n", b'{"path": "a"', b"[]\n", b"null\n"])
    def test_anything_else_is_not_a_row(self, line):
        for vector in (True, False):
            with pytest.raises(NotARow):
                decode(line, vector=vector)
