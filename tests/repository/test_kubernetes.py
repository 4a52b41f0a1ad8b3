"""The manifests of deploy/kubernetes, rendered by kustomize and validated with the schemas.

`make tools` installs kustomize and the schemas of custom resources; without them these tests are
skipped.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.process import free_port, wait_for_port

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
TOOLS = ROOT / "build" / "tools"
FOLDERS = sorted(
    str(path.parent.relative_to(KUBERNETES))
    for path in KUBERNETES.rglob("kustomization.yaml")
    if "components" not in path.parts
)
OVERLAYS = [folder for folder in FOLDERS if folder.startswith("overlays/")]
CUSTOM = {
    "ScaledObject": "keda/keda.sh/v1alpha1",
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1",
}
"""Custom resources, and the modules of @kubernetes-models with their types."""
NEWEST = "1.37"


@functools.cache
def rendered(folder: str) -> list[dict]:
    """The resources of a kustomization."""
    kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=str(TOOLS / "kubectl"))
    if kubectl is None:
        pytest.skip("kubectl, which includes kustomize, is not installed: run `make tools`")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def one(folder: str, kind: str) -> dict:
    (found,) = [each for each in rendered(folder) if each["kind"] == kind]
    return found


def container(folder: str) -> dict:
    (found,) = one(folder, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def flags(folder: str) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in container(folder)["args"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_resource_is_valid_to_the_last_field(folder):
    validate = pytest.importorskip("kubernetes_validate")
    for resource in rendered(folder):
        if resource["kind"] not in CUSTOM:
            validate.validate(resource, NEWEST, strict=True)


def test_without_an_image_volume_kubernetes_1_30_will_do():
    validate = pytest.importorskip("kubernetes_validate")
    for folder in FOLDERS:
        for resource in rendered(folder):
            if resource["kind"] not in CUSTOM and folder != "overlays/image-volume":
                validate.validate(resource, "1.30", strict=True)


def test_custom_resources_are_valid_to_the_last_field(tmp_path):
    """Types reject unknown fields, and the schemas' validators reject invalid values."""
    compiler = TOOLS / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        pytest.skip("the schemas of custom resources are not installed: run `make tools`")
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    lines, seen = [], set()
    for folder in FOLDERS:
        for resource in (each for each in rendered(folder) if each["kind"] in CUSTOM):
            kind = resource["kind"]
            module = f"@kubernetes-models/{CUSTOM[kind]}/{kind}"
            if kind not in seen:
                lines.append(f'import {{ {kind}, type I{kind} }} from "{module}";')
            seen.add(kind)
            name = f"x{len(lines)}"
            lines.append(f"const {name}: I{kind} = {json.dumps(resource)};")
            lines.append(f"new {kind}({name}).validate();")
    assert seen == set(CUSTOM)
    (tmp_path / "check.ts").write_text("\n".join(lines))
    options = ["--strict", "--skipLibCheck", "--module", "node16", "--moduleResolution", "node16"]
    for command in ([str(compiler), *options, "check.ts"], ["node", "check.js"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_pod_is_confined_and_ends_slowly(folder):
    pod = one(folder, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for each in [*pod["containers"], *pod.get("initContainers", [])]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for kind in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(each["resources"][kind])
    pause = container(folder)["lifecycle"]["preStop"]["sleep"]["seconds"]
    age = int(re.search(r"max_connection_age_ms=(\d+)", str(container(folder)["args"]))[1])
    assert age / 1000 < pause  # clients leave before it stops
    assert pod["terminationGracePeriodSeconds"] >= pause + 15 + 5  # GRACE_SECONDS of the server


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_server_starts_with_flags_and_files_that_there_are(folder):
    from featurewire_server.command import serve_parser

    serve_parser().parse_args(container(folder)["args"])
    maps = {
        each["metadata"]["name"]: each["data"]
        for each in rendered("once") + rendered(folder)
        if each["kind"] == "ConfigMap"
    }
    pod = one(folder, "Deployment")["spec"]["template"]["spec"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    files = set()
    for mount in container(folder)["volumeMounts"]:
        name = volumes[mount["name"]].get("configMap", {}).get("name")
        files |= {f"{mount['mountPath']}/{key}" for key in maps.get(name, {})}
        if volumes[mount["name"]].get("emptyDir", {}).get("medium"):
            files.add(f"{mount['mountPath']}/ssl.config")  # written by the init container
    assert {value for value in flags(folder).values() if value.startswith("/")} <= files


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_pod_has_the_limits_of_the_compose_stack(folder):
    """Flags for calls in flight and load attempts, and variables that return freed memory."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["serving-cpu"]
    wanted = dict(flag.split("=", 1) for flag in compose["command"])
    for flag in (
        "--grpc_max_threads",
        "--num_load_threads",
        "--max_num_load_retries",
        "--load_retry_interval_micros",
    ):
        assert flags(folder)[flag] == wanted[flag]
    environment = {each["name"]: each["value"] for each in container(folder)["env"]}
    assert environment == compose["environment"]
    # docs/operating.md: memory of two versions during the load of a third.
    assert int(container(folder)["resources"]["limits"]["memory"].removesuffix("Gi")) >= 6


def test_the_config_maps_are_the_files_of_serving_config():
    (models,) = [each for each in rendered("once") if each["kind"] == "ConfigMap"]
    assert models["metadata"]["name"] == "serving-models"  # no suffix: rollouts write to it
    assert models["data"]["models.config"] == (ROOT / "serving_config/models.config").read_text()
    config = one("base", "ConfigMap")
    for name, text in config["data"].items():
        assert text == (ROOT / "serving_config" / name).read_text()
    assert one("base", "Deployment")["spec"]["template"]["spec"]["volumes"][2]["configMap"] == {
        "name": config["metadata"]["name"]
    }


def test_applying_an_overlay_keeps_what_rollouts_and_exports_made():
    for folder in OVERLAYS:
        kept = {"Namespace", "PersistentVolumeClaim"}
        assert not kept & {each["kind"] for each in rendered(folder)}
        assert "serving-models" not in {each["metadata"]["name"] for each in rendered(folder)}


def test_a_rollout_in_the_cluster_has_only_the_permissions_it_needs():
    from featurewire_rollout.command import rollout_parser

    (job,) = [each for each in rendered("rollout") if each["kind"] == "Job"]
    command, *arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    parsed = rollout_parser().parse_args(arguments)
    assert (command, parsed.step) == ("rollout", "run")
    assert parsed.config == "configmap:featurewire/serving-models/models.config"
    rules = one("rollout", "Role")["rules"]
    assert {
        (each["resources"][0], *each.get("resourceNames", [])): each["verbs"] for each in rules
    } == {
        ("configmaps", "serving-models"): ["get", "patch"],
        ("leases",): ["create"],
        ("leases", "featurewire-rollout-serving-models"): ["get", "patch"],
    }


def pods() -> dict[str, dict]:
    """The pod of every workload, by folder."""
    found = {
        folder: resource["spec"]["template"]["spec"]
        for folder in FOLDERS
        for resource in rendered(folder)
        if resource["kind"] in ("Deployment", "Job")
    }
    assert {"base", "exporter", "rollout", *OVERLAYS} == set(found)
    return found


def test_no_pod_fills_the_disk_of_its_node():
    for folder, pod in pods().items():
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), folder
        for each in pod["containers"]:
            assert "ephemeral-storage" in each["resources"]["limits"], folder


def test_no_pod_walks_its_volume_to_change_owners():
    for folder, pod in pods().items():
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", folder


def test_every_workload_has_a_network_policy_of_its_own():
    for folder in ("base", "exporter", "rollout"):
        policy = one(folder, "NetworkPolicy")["spec"]
        (labels,) = [
            each["spec"]["template"]["metadata"]["labels"]
            for each in rendered(folder)
            if each["kind"] in ("Deployment", "Job")
        ]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_a_rollout_in_the_cluster_sees_files_and_has_time_to_go_back():
    pod = pods()["rollout"]
    assert pod["terminationGracePeriodSeconds"] == 120
    (config,) = [each for each in rendered("once") if each["kind"] == "ConfigMap"]
    (base,) = re.findall(r'base_path: "([^"]+)"', config["data"]["models.config"])
    (mount,) = [
        each["mountPath"]
        for each in pod["containers"][0]["volumeMounts"]
        if each["name"] == "models"
    ]
    assert base.startswith(f"{mount}/")


def test_maintenance_and_updates_look_at_pods_that_serve():
    budget = one("base", "PodDisruptionBudget")["spec"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    for each in pods()["base"]["topologySpreadConstraints"]:
        assert each["matchLabelKeys"] == ["pod-template-hash"]


@pytest.mark.parametrize("folder", ["overlays/autoscaling", "overlays/autoscaling-gpu"])
def test_pods_stay_while_prometheus_is_away(folder):
    spec = one(folder, "ScaledObject")["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    # KEDA supports a fallback only for this type of metric.
    assert {each["metricType"] for each in spec["triggers"]} == {"AverageValue"}


def test_the_exporters_job_runs_a_command_of_its_image():
    from featurewire_exporter.cli.export import export_parser

    command, module = one("exporter", "Job")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert command == "export"
    assert export_parser().parse_args([module, "/models/x"]).module.startswith("https://")


def test_the_gpu_overlays_differ_by_what_a_gpu_needs():
    assert container("overlays/gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert flags("overlays/gpu")["--mixed_precision"] == "float16"
    assert flags("overlays/gpu")["--batching_parameters_file"].endswith("batching.gpu.config")
    assert container("overlays/gpu")["image"].endswith("-gpu")
    assert container("overlays/gpu-shared")["resources"]["limits"]["nvidia.com/gpu.shared"] == "1"
    sharing = next(
        each["data"]
        for each in rendered("overlays/gpu-shared")
        if each["metadata"]["name"] == "gpu-sharing"
    )
    for text in map(yaml.safe_load, sharing.values()):
        ((resource,),) = [way["resources"] for way in text["sharing"].values()]
        share = float(flags("overlays/gpu-shared")["--per_process_gpu_memory_fraction"])
        assert share * resource["replicas"] <= 1


@pytest.mark.slow
def test_mutual_tls_from_the_secrets_to_an_embedding(tiny_model, tmp_path):
    """Run the rendered pod without Kubernetes: the init container's command on the Secret's files,
    then the server with the pod's flags, and clients with and without a certificate."""
    import trustme

    import featurewire

    authority, stranger = trustme.CA(), trustme.CA()
    server = authority.issue_cert("serving.featurewire", "localhost")
    client, other = authority.issue_cert("client"), stranger.issue_cert("client")
    secret = {  # as cert-manager makes it
        "tls.crt": server.cert_chain_pems[0].bytes(),
        "tls.key": server.private_key_pem.bytes(),
        "ca.crt": authority.cert_pem.bytes(),
    }
    folders = {name: tmp_path / name for name in ("certificates", "tls")}
    for folder in folders.values():
        folder.mkdir()
    for name, data in secret.items():
        (folders["certificates"] / name).write_bytes(data)

    def here(text: str) -> str:
        for name, folder in folders.items():
            text = text.replace(f"/{name}/", f"{folder}/")
        return text

    pod = one("overlays/mtls", "Deployment")["spec"]["template"]["spec"]
    (init,) = pod["initContainers"]
    assert init["image"] == container("overlays/mtls")["image"]
    subprocess.run([here(part) for part in init["command"]], check=True)

    port, rest = free_port(), free_port()
    config = tmp_path / "models.config"
    text = (ROOT / "serving_config" / "models.config").read_text()
    config.write_text(text.replace('"/models/inception_resnet_v2"', f'"{tiny_model}"'))
    places = {
        "/models-config/models.config": str(config),
        "/serving_config/": f"{ROOT / 'serving_config'}/",
        "--port=8500": f"--port={port}",
        "--rest_api_port=8501": f"--rest_api_port={rest}",
    }
    arguments = [here(argument) for argument in container("overlays/mtls")["args"]]
    for old, new in places.items():
        arguments = [argument.replace(old, new) for argument in arguments]
    command = ROOT / "server" / "tensorflow_model_server"
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", str(command), *arguments], stdout=log, stderr=log, env=environment
        )
    try:
        wait_for_port(port, process, 180)

        def tls(leaf: trustme.LeafCert | None) -> featurewire.TLSConfig:
            own: dict[str, Any] = {}
            if leaf is not None:
                own = {"cert": leaf.cert_chain_pems[0].bytes(), "key": leaf.private_key_pem.bytes()}
            return featurewire.TLSConfig(ca=authority.cert_pem.bytes(), **own)

        options: dict[str, Any] = {"model": "inception_resnet_v2", "timeout": 20}
        with featurewire.Client(f"localhost:{port}", tls=tls(client), **options) as known:
            assert known.embed(b"\xff\xd8\xff x").version == 2
        for leaf in (None, other):
            with (
                featurewire.Client(f"localhost:{port}", tls=tls(leaf), **options) as unknown,
                pytest.raises(featurewire.FeaturewireError),
            ):
                unknown.embed(b"\xff\xd8\xff x")
    finally:
        process.terminate()
        process.wait(60)
