"""Two versions of a learned network on a real server, compared with real pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire_rollout.check import CheckConfig, CheckError, Report, Thresholds, to_html, to_json
from featurewire_rollout.check.thresholds import STRICTNESS
from featurewire_rollout.cli.check_options import (
    LIMITS,
    add_check_options,
    check_config,
    check_outputs,
    write_outputs,
)
from featurewire_rollout.command import rollout
from tests.rollout.check.comparing import compared
from tests.support.pictures import write_tiles
from tests.support.process import ServerProcess, all_versions

MODEL = "lite0"
IMAGES = 90


@pytest.fixture(scope="module")
def images(photos, tmp_path_factory) -> Path:
    folder = write_tiles(photos, tmp_path_factory.mktemp("tiles") / "images", IMAGES)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than a beginning")
    (folder / "twin.jpg").write_bytes((folder / "0000.jpg").read_bytes())
    return folder


@pytest.fixture(scope="module")
def server(learned_module, tmp_path_factory) -> Iterator[ServerProcess]:
    """Version 1 is a plain export, version 2 ignores EXIF tags, and version 3 equals version 1."""
    from featurewire_exporter.commands import export

    folder = tmp_path_factory.mktemp("served")
    base = folder / MODEL
    for more in ([], ["--no-exif-orientation"]):
        assert export([str(learned_module), str(base), *more]) == 0
    (base / "3").symlink_to(base / "1")
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    config = all_versions(folder, MODEL, base, labels)
    server = ServerProcess(
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
        log=folder / "server.log",
    ).start()
    yield server
    server.stop()


def check(server: ServerProcess, images: Path, canary: dict, max_images: int = 500) -> Report:
    stable = {"model": MODEL, "label": "stable"}
    config = CheckConfig(max_images=max_images)
    return compared(server, images, stable, {"model": MODEL, **canary}, config)


@pytest.fixture(scope="module")
def worse(server, images) -> Report:
    return check(server, images, {"label": "canary"})


def test_a_version_that_ignores_exif_fails_even_without_tagged_photos(worse):
    found = to_json(worse)
    assert (worse.exit_status, found["verdict"]["space"]) == (1, "new")
    assert found["verdict"]["text"].startswith("new space: rebuild the index (cosine, 5th")
    assert found["stable"]["vector_space"] != found["canary"]["vector_space"]
    assert found["images"] == {
        "sent": IMAGES + 1,
        "compared": IMAGES,
        "duplicates": 1,
        "left_out": 0,
    }
    assert found["errors"] == [{"image": "broken.jpg", "stable": "corrupt", "canary": "corrupt"}]


def test_the_same_version_under_another_number_passes(server, images):
    report = check(server, images, {"version": 3})
    by_name = {each.name: each for each in report.measures}
    assert report.verdict.outcome != "fail" or "latency" in report.verdict.text
    assert report.verdict.space == "same"
    assert by_name["cosine_p5"].interval.low > 0.9999
    assert by_name["recall_loss"].interval.estimate == 0


def test_few_images_are_inconclusive_and_say_how_many_would_tell(server, images):
    report = check(server, images, {"version": 3}, max_images=15)
    assert report.exit_status == 3
    assert report.verdict.more_images
    assert f"{report.verdict.more_images} more images would tell" in report.verdict.text
    assert len(report.pairs.names) == 15


def test_the_page_holds_everything_and_loads_nothing(worse):
    page = to_html(worse)
    assert "data:image/jpeg;base64," in page
    assert page.count("<svg") >= len(worse.measures) + 3
    assert "http" not in page.replace("http-equiv", "")
    assert all(worse.pairs.names[row] in page for row in worse.worst())


def test_without_pillow_crops_are_left_out_and_the_report_says_so(server, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr("featurewire_rollout.check.crops.available", lambda: False)
    report = check(server, images, {"version": 3}, max_images=10)
    assert "pip install 'featurewire-rollout[images]'" in " ".join(report.remarks)
    assert not any(each.name.startswith("recall") for each in report.measures)
    assert "<img" not in to_html(report)


def parsed(*options: str):
    parser = argparse.ArgumentParser()
    add_check_options(parser)
    args = parser.parse_args(options)
    return args, check_config(parser, args)


def test_options_set_the_limits_and_name_the_outputs(worse, images, tmp_path):
    outputs = ["--report", str(tmp_path / "r.html"), "--output", str(tmp_path / "r.json")]
    args, config = parsed("--images", str(images), "--strictness", "quantised", *outputs)
    assert config.thresholds == Thresholds(**STRICTNESS["quantised"])
    check_outputs(args)
    write_outputs(args, worse)
    assert json.loads((tmp_path / "r.json").read_text()) == to_json(worse)
    assert (tmp_path / "r.html").read_text() == to_html(worse)
    assert len(list(tmp_path.iterdir())) == 2


OPTIONS = [f"--{name.replace('_', '-')}" for name in LIMITS]


@pytest.mark.parametrize(
    ("step", "option", "value"),
    [("check", option, "nan") for option in OPTIONS]
    + [("check", "--max-recall-loss", value) for value in ("-1.5", "1e999", "x")]
    + [
        ("check", "--seed", "-1"),
        ("check", "--max-images", "5"),
        ("run", "--max-recall-loss", "x"),
    ],
)
def test_a_limit_that_makes_no_sense_is_one_line_with_its_option(step, option, value, capsys):
    more = ["--config", "x", "--version", "2"] if step == "run" else []
    fleet = ["--server", "127.0.0.1:1", "--model", "m", "--images", "."]
    with pytest.raises(SystemExit) as caught:
        rollout([step, *fleet, *more, f"{option}={value}"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert option in said
    assert said.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    args, _ = parsed("--images", ".", "--output", str(tmp_path / "no" / "r.json"))
    with pytest.raises(CheckError, match="does not exist"):
        check_outputs(args)


def test_a_folder_without_images_is_one_line(server, tmp_path):
    with pytest.raises(CheckError, match="no images in it"):
        check(server, tmp_path, {"version": 3})
