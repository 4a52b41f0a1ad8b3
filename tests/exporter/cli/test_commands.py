"""Every failure gives one line and exit status 1 or 2, and leaves no files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from featurewire.manifest.files import changed_file
from featurewire_exporter import commands
from featurewire_exporter.__main__ import main
from featurewire_exporter.version import manifest
from tests.exporter.modules import (
    write_tf1_module_with_a_table,
    write_tf2_module,
    write_tf2_module_with_a_table,
)
from tests.support import warm


def usage_error(capsys, argv: list[str], command=commands.export) -> str:
    with pytest.raises(SystemExit) as caught:
        command(argv)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--version", "0"], "--version"),
        (["--version", "-1"], "--version"),
        (["--version", "1.5"], "--version"),
        (["--version", str(2**63)], "--version"),
        (["--version", "9" * 5000], "--version"),
        (["--precision", "int8"], "--precision"),
        (["--from", "keras"], "--from"),
        (["--resize-method", "nearest"], "--resize-method"),
        (["--central-crop", "0"], "--central-crop"),
        (["--central-crop", "1.01"], "--central-crop"),
        (["--central-crop", "nan"], "--central-crop"),
        (["--central-crop", "all"], "--central-crop"),
        (["--input-range", "255"], "--input-range"),
        (["--input-range", "0,a"], "--input-range"),
        (["--input-range", "0,127,255"], "--input-range"),
        (["--input-range", "255,0"], "input_range"),
        (["--input-range", "1,1"], "input_range"),
        (["--input-range", "0,nan"], "input_range"),
        (["--input-range", "0,inf"], "input_range"),
        (["--input-range", "0,1e30"], "input_range"),
        (["--max-pixels", "0"], "--max-pixels"),
        (["--max-pixels", "2000000000"], "max_pixels"),
        (["--max-image-bytes", "-5"], "--max-image-bytes"),
        (["--max-image-bytes", "lots"], "--max-image-bytes"),
        (["--max-image-bytes", "500"], "--max-image-bytes"),
        (["--max-batch-size", "0"], "--max-batch-size"),
        (["--max-batch-size", "5000"], "--max-batch-size"),
        (["--image-size", "299x"], "--image-size"),
        (["--image-size", "0x10"], "--image-size"),
        (["--image-size", "1x2x3"], "--image-size"),
        (["--image-size", "4097x10"], "--image-size"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(capsys, tmp_path, options, named):
    error = usage_error(capsys, ["stand-in", str(tmp_path / "m"), *options])

    assert error.startswith("featurewire export: ")
    assert named in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (commands.export, []),
        (commands.export, ["stand-in"]),
        (commands.inspect, []),
        (commands.verify, []),
        (commands.verify, ["here"]),
    ],
)
def test_a_missing_argument_is_one_line(capsys, command, argv):
    assert "required" in usage_error(capsys, argv, command)


@pytest.mark.parametrize("base_path", ["", "a\0b"])
def test_an_output_path_that_no_folder_can_have_is_a_usage_error(capsys, base_path):
    assert "OUTPUT_BASE_PATH" in usage_error(capsys, ["stand-in", base_path])


def test_a_remote_output_path_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commands.export(["stand-in", "gs://bucket/model"]) == 1
    assert "gs://bucket/model is not a local path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_limits_that_usual_photos_exceed_are_no_mismatch(tmp_path, tf2_module):
    limits = ["--max-pixels", "100000", "--max-image-bytes", "20000", "--central-crop", "1e-17"]
    assert commands.export([str(tf2_module), str(tmp_path / "m"), *limits]) == 0
    assert commands.verify([str(tmp_path / "m" / "1"), "--module", str(tf2_module)]) == 0


@pytest.mark.parametrize("flavour", [tf.numpy_function, tf.py_function])
def test_a_module_of_python_code_is_refused(capsys, tmp_path, flavour):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, images):
            doubled = flavour(lambda x: x * 2, [images], tf.float32)
            return tf.reduce_mean(tf.ensure_shape(doubled, images.shape), [1, 2])

    tf.saved_model.save(Module(), str(tmp_path / "module"))
    assert commands.export([str(tmp_path / "module"), str(tmp_path / "m")]) == 1
    assert "calls Python code while it runs" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_saved_module_of_python_code_is_refused_in_another_process(tmp_path):
    """The module lacks its Python code in another process, already when the exporter tries it."""
    code = """if True:
        import sys, tensorflow as tf
        class Module(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
            def __call__(self, images):
                doubled = tf.py_function(lambda x: x * 2, [images], tf.float32)
                return tf.reduce_mean(tf.ensure_shape(doubled, images.shape), [1, 2])
        tf.saved_model.save(Module(), sys.argv[1])
    """
    warm.run(["-c", code, str(tmp_path / "module")], check=True)
    done = run("export", str(tmp_path / "module"), str(tmp_path / "m"), cwd=tmp_path)
    assert done.returncode == 1
    assert "calls Python code while it runs (EagerPyFunc)" in done.stderr


@pytest.mark.parametrize("write", [write_tf1_module_with_a_table, write_tf2_module_with_a_table])
def test_a_module_with_a_table_cannot_be_frozen(capsys, tmp_path, write):
    module = write(tmp_path / "module")
    assert commands.export([str(module), str(tmp_path / "m")]) == 1
    text = capsys.readouterr().err
    assert "the module cannot be frozen to constants (it looks up tables: " in text
    assert text.count("\n") == 1
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_version_can_be_a_date_or_the_largest_number(tmp_path, tf2_module):
    for number in ("20261124101403", str(2**63 - 1)):
        assert commands.export([str(tf2_module), str(tmp_path / "m"), "--version", number]) == 0
        assert (tmp_path / "m" / number / "saved_model.pb").exists()


@pytest.mark.slow
def test_verify_advises_no_option_that_it_lacks(capsys, tiny_version, tmp_path):
    options = {"--module", "--from", "--json", "--help"}
    others = [
        write_tf2_module(tmp_path / "weights", seed=3),
        write_tf2_module(tmp_path / "size", size=(8, 8)),
        write_tf2_module(tmp_path / "dimension", dimension=5),
    ]
    for other in others:
        assert commands.verify([str(tiny_version), "--module", str(other)]) == 1
        text = capsys.readouterr().err
        assert set(re.findall(r"--[a-z-]+", text)) <= options
        assert text.count("\n") == 1


def test_a_newline_in_a_name_keeps_the_error_in_one_line(capsys, tmp_path):
    assert commands.export(["no\nmodule", str(tmp_path / "m")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_reader_that_has_gone_costs_no_export(tmp_path, tf2_module):
    """Like `featurewire export ... | head -1`."""
    read, write = os.pipe()
    os.close(read)
    command = ["-m", "featurewire_exporter", "export", str(tf2_module), str(tmp_path / "m")]
    done = warm.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)

    assert (tmp_path / "m" / "1" / "saved_model.pb").exists()
    assert done.returncode == 1
    assert re.fullmatch(r"featurewire export: standard output .*; .*/m/1\n", done.stderr)


def test_a_module_that_is_none_leaves_nothing_behind(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    for module in ("nowhere", str(tmp_path / "empty"), "http://127.0.0.1:1/x"):
        assert commands.export([module, str(tmp_path / "out" / "m")]) == 1
        captured = capsys.readouterr()
        assert re.fullmatch(r"featurewire export: .*; .*\n", captured.err)
        assert captured.err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_version_that_exists_is_one_line(capsys, tiny_version, tf2_module):
    before = sorted(tiny_version.parent.iterdir())

    assert commands.export([str(tf2_module), str(tiny_version.parent), "--version", "1"]) == 1
    assert "version 1 exists" in capsys.readouterr().err
    assert sorted(tiny_version.parent.iterdir()) == before


def test_an_unexpected_error_is_one_line_too(capsys, tmp_path, monkeypatch):
    import featurewire_exporter.export

    def broken(*_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(featurewire_exporter.export, "export_module", broken)
    assert commands.export(["stand-in", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert error == (
        "featurewire export: RuntimeError: first; set FEATUREWIRE_DEBUG=1 for the traceback\n"
    )


def run(*argv: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    return warm.run(
        ["-m", "featurewire_exporter", *argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        **options,
    )


@pytest.mark.slow
def test_a_process_prints_nothing_of_tensorflows(tmp_path, tf2_module):
    """TensorFlow logs to the file descriptor during its import, which a terminal would show."""
    done = run("export", str(tf2_module), "out/m", cwd=tmp_path, new_interpreter=True)

    assert (done.returncode, done.stderr) == (0, "")
    *steps, path = done.stdout.splitlines()
    assert path == str(tmp_path / "out" / "m" / "1")
    assert len(steps) >= 4
    assert all(re.match(r"\[ *\d+ s\] ", step) for step in steps)

    failed = run("export", "nowhere", "out/n", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1


def test_parsing_and_help_need_no_tensorflow(tmp_path):
    code = (
        "import sys; from featurewire_exporter.cli import export, inspect, verify\n"
        "for parser in (export.export_parser, inspect.inspect_parser, verify.verify_parser):\n"
        "    parser().format_help()\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_the_module_runs_without_the_client(capsys):
    assert main(["--help"]) == 0
    assert {"export", "inspect", "verify"} <= set(capsys.readouterr().out.split())
    assert main(["unknown"]) == 2
    assert main([]) == 2


def test_inspect_prints_a_card_and_json(capsys, tiny_version):
    assert commands.inspect([str(tiny_version)]) == 0
    card = capsys.readouterr().out
    for text in ("20 x 24 pixels", "6 floats", "float32", "7 records", "serving_default"):
        assert text in card

    assert commands.inspect([str(tiny_version), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["manifest"]["dimension"] == 6
    assert described["signatures"]["manifest"]["outputs"] == {"manifest": "string[N]"}
    assert described["warmup_records"] == 7


def test_inspect_of_a_stand_in_says_so(capsys, small_published):
    assert commands.inspect([str(small_published / "1")]) == 0
    assert "stand-in (random weights" in capsys.readouterr().out


def test_inspect_of_something_else_is_one_line(capsys, tmp_path, tiny_version):
    damaged = tmp_path / "damaged"
    subprocess.run(["cp", "-r", str(tiny_version), str(damaged)], check=True)
    (damaged / "saved_model.pb").write_bytes(b"\xff")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "assets.extra").mkdir()
    (tmp_path / "text" / "assets.extra" / "featurewire.json").write_text("{")
    for path in (tmp_path / "nowhere", tmp_path, damaged, tmp_path / "text"):
        assert commands.inspect([str(path)]) == 1
        assert re.fullmatch(r"featurewire inspect: .*; .*\n", capsys.readouterr().err)


@pytest.mark.slow
def test_verify_passes_for_the_module_itself(capsys, tiny_version, tf2_module):
    assert commands.verify([str(tiny_version), "--module", str(tf2_module)]) == 0
    assert "matches the module" in capsys.readouterr().out.splitlines()[-1]

    assert commands.verify([str(tiny_version), "--module", str(tf2_module), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert report["vector_space"] == report["expected_vector_space"]


@pytest.mark.slow
def test_verify_fails_for_another_module_with_the_numbers(capsys, tiny_version, tmp_path):
    from tests.exporter.modules import (
        write_tf2_module,
    )

    other = write_tf2_module(tmp_path / "other", seed=2)
    assert commands.verify([str(tiny_version), "--module", str(other)]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"featurewire verify: .*max abs difference [\d.e+-]+.*\n", error)


@pytest.mark.slow
def test_verify_fails_for_a_module_of_another_dimension(capsys, tiny_version, tmp_path):

    other = write_tf2_module(tmp_path / "other", dimension=7)
    assert commands.verify([str(tiny_version), "--module", str(other)]) == 1
    assert "another module" in capsys.readouterr().err


def test_verify_notices_a_manifest_that_was_changed(capsys, tiny_version, tf2_module, tmp_path):
    version = tmp_path / "1"
    subprocess.run(["cp", "-r", str(tiny_version), str(version)], check=True)
    path = version / "assets.extra" / "featurewire.json"
    manifest = json.loads(path.read_text())
    manifest["vector_space"] = "0" * 32
    path.write_text(json.dumps(manifest))

    assert commands.verify([str(version), "--module", str(tf2_module)]) == 1
    assert "does not match the version's own graph" in capsys.readouterr().err


def test_verify_notices_a_bit_that_flipped_in_the_weights(
    capsys, tiny_version, tf2_module, tmp_path
):
    version = tmp_path / "1"
    subprocess.run(["cp", "-r", str(tiny_version), str(version)], check=True)
    assert changed_file(version, manifest.read_manifest(version)) is None
    for name in ("saved_model.pb", "batching_params.pbtxt"):
        path = version / name
        whole = path.read_bytes()
        at = weights_at(whole) if name == "saved_model.pb" else 0
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert commands.verify([str(version), "--module", str(tf2_module)]) == 1
        said = capsys.readouterr().err
        assert f"/{name} does not match its digest in the manifest (SHA-256)" in said
        path.write_bytes(whole)


def weights_at(graph: bytes) -> int:
    """Truncate the file within the largest constant of the graph."""
    (meta,) = saved_model_pb2.SavedModel.FromString(graph).meta_graphs
    contents = [node.attr["value"].tensor.tensor_content for node in meta.graph_def.node]
    return graph.find(max(contents, key=len)) + 8


def test_verify_notices_a_warm_up_file_that_was_cut(capsys, tiny_version, tf2_module, tmp_path):
    version = tmp_path / "1"
    subprocess.run(["cp", "-r", str(tiny_version), str(version)], check=True)
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert commands.verify([str(version), "--module", str(tf2_module)]) == 1
    assert "tf_serving_warmup_requests is damaged" in capsys.readouterr().err
    path.unlink()
    assert commands.verify([str(version), "--module", str(tf2_module)]) == 1
    assert "0 warm-up records instead of 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("module", None),
        ("module", {"handle": "x"}),
        ("parity", None),
        ("image_size", "x"),
        ("image_size", [1]),
        ("preprocess", []),
        ("dimension", "6"),
        ("files", []),
    ],
)
def test_a_manifest_that_lacks_something_is_one_line(capsys, tiny_version, tmp_path, name, value):
    version = tmp_path / "1"
    subprocess.run(["cp", "-r", str(tiny_version), str(version)], check=True)
    path = version / "assets.extra" / "featurewire.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    for command, options in ((commands.inspect, []), (commands.verify, ["--module", "stand-in"])):
        assert command([str(version), *options]) == 1
        error = capsys.readouterr().err
        assert re.fullmatch(rf".*featurewire.json is not a manifest: '{name}' .*\n", error)


def test_the_manifest_of_the_stand_in_says_so(published_manifest):
    assert published_manifest["module"]["stand_in"] is True
    assert published_manifest["dimension"] == 1536
    assert published_manifest["image_size"] == [299, 299]
    assert published_manifest["parity"]["max_abs"] <= 1e-4
    assert published_manifest["module"]["handle"] == "stand-in"
