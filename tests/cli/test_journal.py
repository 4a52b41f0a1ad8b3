"""Files are complete or can be resumed after a kill at any moment, for each kind of output."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurewire._cli.journal import OutputError
from featurewire._cli.outputs import Output
from featurewire._cli.rows import NotARow, Origin, decode, encode

ONE = Origin(model="tiny", version=1, vector_space="space-1")
BARE = Origin(model="tiny", version=1, vector_space=None)
KINDS = [".npy", ".jsonl", ".parquet"]

opened: list[Output] = []
"""Outputs of the running test, which must release them, as the end of a process would."""


@pytest.fixture(autouse=True)
def release_outputs() -> Iterator[None]:
    yield
    while opened:
        opened.pop().leave()


def output_at(path: Path) -> Output:
    opened.append(Output(path))
    return opened[-1]


def vector(number: int) -> np.ndarray:
    return np.arange(4, dtype=np.float32) / 3 + number


def append(output: Output, *numbers: int) -> Output:
    for number in numbers:
        output.append(f"{number}.jpg", ONE, vector(number))
    return output


def begin(path: Path, *numbers: int) -> None:
    """Leave the files of a killed run."""
    append(output_at(path), *numbers).leave()


def publish(path: Path, *numbers: int) -> None:
    append(output_at(path), *numbers).publish()


def loaded(output: Output) -> list[str]:
    paths: list[str] = []
    output.load(lambda path, _origin: paths.append(path))
    assert output.rows == len(paths)
    return paths


def rows_of(path: Path) -> list[tuple[str, list[float]]]:
    """Paths and vectors of a published file, read without this project's code."""
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
    return [(row["path"], np.asarray(row["vector"], np.float32).tolist()) for row in rows]


def expected(*numbers: int) -> list[tuple[str, list[float]]]:
    return [(f"{number}.jpg", vector(number).tolist()) for number in numbers]


@pytest.mark.parametrize("suffix", KINDS)
def test_rows_come_back_exactly(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    output = append(output_at(path), 0, 1, 2)
    assert not path.exists()
    output.publish()
    assert rows_of(path) == expected(0, 1, 2)
    beside = {"out.jsonl", "out.npy"} if suffix == ".npy" else {path.name}
    assert {entry.name for entry in tmp_path.iterdir()} == beside


@pytest.mark.parametrize("suffix", KINDS)
def test_a_published_file_is_extended_and_stays_whole_meanwhile(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    publish(path, 0, 1)
    output = output_at(path)
    assert loaded(output) == ["0.jpg", "1.jpg"]
    append(output, 2)
    assert rows_of(path) == expected(0, 1)
    output.publish()
    assert rows_of(path) == expected(0, 1, 2)


@pytest.mark.parametrize("extended", [0, 2])
@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_a_journal_cut_at_any_byte_loses_only_the_row_that_was_torn(tmp_path, suffix, extended):
    path = tmp_path / f"out{suffix}"
    old = list(range(extended))
    if extended:
        publish(path, *old)
    output = output_at(path)
    loaded(output)
    journal = tmp_path / f"out{suffix}.partial"
    ends = []
    for number in range(extended, extended + 3):
        append(output, number)
        ends.append(journal.stat().st_size)
    output.leave()
    whole = journal.read_bytes()
    for cut in range(len(whole) + 1):
        journal.write_bytes(whole[:cut])
        kept = [*old, *(extended + row for row, end in enumerate(ends) if end <= cut)]
        again = output_at(path)
        again.check_free(resume=True, overwrite=False)
        assert loaded(again) == [f"{number}.jpg" for number in kept], cut
        append(again, *range(len(kept), extended + 3))
        again.leave()
        assert journal.read_bytes() == whole


@pytest.mark.parametrize("suffix", KINDS)
def test_a_second_process_may_not_go_on_with_a_journal_in_use(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    first = append(output_at(path), 0)
    with pytest.raises(OutputError, match=r"another process is writing .*; wait for it to end"):
        loaded(output_at(path))
    with pytest.raises(OutputError, match="another process is writing"):
        append(output_at(path), 1)
    first.leave()
    assert loaded(output_at(path)) == ["0.jpg"]


@pytest.mark.parametrize("suffix", KINDS)
def test_two_processes_cannot_extend_the_same_file_at_once(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    publish(path, 0)
    first = output_at(path)
    loaded(first)
    with pytest.raises(OutputError, match="another process is writing"):
        loaded(output_at(path))


@pytest.mark.parametrize("extended", [0, 2])
@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_after_any_rename_loses_nothing_and_repeats_nothing(
    tmp_path, monkeypatch, suffix, extended, renames
):
    path = tmp_path / f"out{suffix}"
    if extended:
        publish(path, *range(extended))
    output = output_at(path)
    loaded(output)
    append(output, *range(extended, extended + 2))
    replace, unlink = os.replace, Path.unlink
    done: list[Any] = []

    def killed(source, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        replace(source, target)
        done.append(target)

    def keep(self, missing_ok=False):
        if len(done) == renames and self.suffix == ".partial":
            raise KeyboardInterrupt
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(Path, "unlink", keep)
    try:
        output.publish()
        assert suffix != ".npy"
        assert renames == 2
    except KeyboardInterrupt:
        output.leave()
    monkeypatch.undo()
    again = output_at(path)
    assert loaded(again) == [f"{number}.jpg" for number in range(extended + 2)]
    again.publish()
    assert rows_of(path) == expected(*range(extended + 2))
    assert not (tmp_path / f"out{suffix}.partial").exists()


@pytest.mark.parametrize("suffix", KINDS)
def test_a_killed_overwriting_run_resumes_without_the_old_rows(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    publish(path, 0, 1)
    begin(path, 5)
    again = output_at(path)
    assert loaded(again) == ["5.jpg"]
    again.publish()
    assert rows_of(path) == expected(5)


def test_a_published_file_that_lost_rows_is_not_gone_on_with(tmp_path):
    path = tmp_path / "out.jsonl"
    publish(path, 0, 1)
    output = output_at(path)
    loaded(output)
    append(output, 2).leave()
    path.write_bytes(encode(0, "0.jpg", ONE, vector(0)))
    with pytest.raises(OutputError, match=r"continues 2 rows of .*, which has 1; choose"):
        loaded(output_at(path))


@pytest.mark.parametrize("what", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("content", [b"mine", b'{"mine": 1}\n', encode(0, "a.jpg", ONE)])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_journal_of_another_program_is_left_alone(tmp_path, suffix, content, what):
    file = tmp_path / f"out{suffix}.partial"
    file.write_bytes(content)
    with pytest.raises(OutputError, match="is not a featurewire journal"):
        output_at(tmp_path / f"out{suffix}").check_free(resume=what[0], overwrite=what[1])
    assert file.read_bytes() == content


@pytest.mark.parametrize("suffix", KINDS)
def test_files_that_are_there_are_refused_unless_one_says_what_to_do(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    begin(path, 0)
    with pytest.raises(OutputError, match=r"left from an unfinished run; --resume"):
        output_at(path).check_free(resume=False, overwrite=False)
    output = output_at(path)
    loaded(output)
    output.publish()
    with pytest.raises(OutputError, match=r"exists; --resume continues it, --overwrite"):
        output_at(path).check_free(resume=False, overwrite=False)
    output_at(path).check_free(resume=True, overwrite=False)
    output_at(path).check_free(resume=False, overwrite=True)


WHAT_TO_DO = [
    {"resume": resume, "overwrite": overwrite}
    for resume, overwrite in [(False, False), (True, False), (False, True)]
]


@pytest.mark.parametrize("what", WHAT_TO_DO)
@pytest.mark.parametrize("content", [b'{"mine": 1}\n', b"{}", encode(0, "a", ONE, vector(0))])
@pytest.mark.parametrize("beside", [[], ["out.npy", "out.npy.partial"]])
def test_what_is_no_index_is_not_replaced_by_one(tmp_path, content, beside, what):
    (tmp_path / "out.jsonl").write_bytes(content)
    for array in beside:
        (tmp_path / array).touch()
    with pytest.raises(
        OutputError, match=r"out.jsonl exists and is not a featurewire index; move it"
    ):
        output_at(tmp_path / "out.npy").check_free(**what)
    assert (tmp_path / "out.jsonl").read_bytes() == content


@pytest.mark.parametrize("what", WHAT_TO_DO)
def test_the_index_of_an_array_is_no_output_of_lines(tmp_path, what):
    array = append(output_at(tmp_path / "out.npy"), 0, 1)
    with pytest.raises(
        OutputError, match=r"out.jsonl is reserved for the index of .*out.npy.partial;"
    ):
        output_at(tmp_path / "out.jsonl").check_free(**what)
    array.publish()
    with pytest.raises(OutputError, match=r"out.jsonl is the index of .*out.npy; choose another"):
        output_at(tmp_path / "out.jsonl").check_free(**what)


@pytest.mark.parametrize("what", WHAT_TO_DO)
def test_an_array_does_not_take_the_name_of_lines_that_were_begun(tmp_path, what):
    begin(tmp_path / "out.jsonl", 0)
    with pytest.raises(
        OutputError, match=r"out.jsonl.partial belongs to an unfinished run that writes"
    ):
        output_at(tmp_path / "out.npy").check_free(**what)


def test_lines_beside_an_array_of_something_else_are_gone_on_with(tmp_path):
    (tmp_path / "out.npy").write_bytes(b"mine")
    publish(tmp_path / "out.jsonl", 0)
    output_at(tmp_path / "out.jsonl").check_free(resume=True, overwrite=False)
    assert loaded(output_at(tmp_path / "out.jsonl")) == ["0.jpg"]


def test_an_index_without_its_array_is_not_gone_on_with(tmp_path):
    (tmp_path / "out.jsonl").write_bytes(encode(0, "a.jpg", ONE))
    with pytest.raises(OutputError, match=r"out.jsonl exists without .*out.npy"):
        output_at(tmp_path / "out.npy").load(lambda *_: None)


@pytest.mark.parametrize("what", WHAT_TO_DO)
@pytest.mark.parametrize("suffix", KINDS)
def test_a_directory_in_the_place_of_an_output_is_refused(tmp_path, suffix, what):
    (tmp_path / f"out{suffix}").mkdir()
    with pytest.raises(OutputError, match=rf"out{suffix} is not a regular file; choose another"):
        output_at(tmp_path / f"out{suffix}").check_free(**what)


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
        output_at(tmp_path / name).load(lambda *_: None)
    assert (tmp_path / name).read_bytes() == content


def test_an_array_of_another_program_is_not_gone_on_with(tmp_path):
    np.save(tmp_path / "out.npy", np.zeros((2, 4)))
    (tmp_path / "out.jsonl").write_bytes(encode(0, "a.jpg", ONE) + encode(1, "b.jpg", ONE))
    with pytest.raises(OutputError, match="was not written by featurewire embed"):
        output_at(tmp_path / "out.npy").load(lambda *_: None)


def test_an_array_and_an_index_that_disagree_are_not_gone_on_with(tmp_path):
    publish(tmp_path / "out.npy", 0, 1)
    (tmp_path / "out.jsonl").write_bytes(encode(0, "0.jpg", ONE))
    with pytest.raises(OutputError, match=r"has 2 rows but its index .* has 1"):
        output_at(tmp_path / "out.npy").load(lambda *_: None)


def test_an_index_with_vectors_is_not_gone_on_with(tmp_path):
    publish(tmp_path / "out.npy", 0, 1)
    mixed = encode(0, "0.jpg", ONE) + encode(1, "1.jpg", ONE, vector(1))
    (tmp_path / "out.jsonl").write_bytes(mixed)
    with pytest.raises(OutputError, match=r"line 2 of .*out.jsonl was not written"):
        output_at(tmp_path / "out.npy").load(lambda *_: None)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("published", [False, True])
def test_a_vector_of_another_length_is_refused(tmp_path, suffix, published):
    path = tmp_path / f"out{suffix}"
    output = append(output_at(path), 0)
    if published:
        output.publish()
        output = output_at(path)
        loaded(output)
    with pytest.raises(OutputError, match=r"answered with 5 floats .* have 4"):
        output.append("b.jpg", ONE, np.zeros(5, np.float32))
    assert output.rows == 1
    output.leave()


@pytest.mark.parametrize("suffix", [".txt", "", ".csv", ".NPY"])
def test_an_unknown_suffix_names_the_known_ones(suffix):
    with pytest.raises(ValueError, match=r"must end in one of \.npy, \.parquet, \.jsonl"):
        output_at(Path(f"out{suffix}"))


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
