"""The cluster files: held against Ray's schema and scheduler, EC2's parameters and the Kubernetes API's types."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import kubernetes.client.models
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

ROOT = Path(__file__).parents[1]
UP = ROOT / "ray_cluster.yaml"
KUBERAY = ROOT / "ray_cluster.kuberay.yaml"
CLUSTER = yaml.safe_load(UP.read_text())
CLAIM, RAY_CLUSTER = yaml.safe_load_all(KUBERAY.read_text())
SPOT, ON_DEMAND = "gpu_spot", "gpu_on_demand"

# Fields of KubeRay 1.6 that the manifest may use: https://docs.ray.io/en/master/cluster/kubernetes/references/api.html
KUBERAY_FIELDS = {
    "": {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"},
    "autoscalerOptions": {"version", "upscalingMode", "idleTimeoutSeconds", "resources"},
    "headGroupSpec": {"serviceType", "rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def read_by_ray(config: dict[str, Any]) -> AutoscalingConfig:
    """As `ray up` and the autoscaler read it: filled with defaults, checked against ray-schema.json."""
    return AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True)


def alternatives() -> list[dict[str, Any]]:
    """The commented blocks of keys to replace."""
    blocks = re.findall(r"(?:^#: .*\n)+", UP.read_text(), re.MULTILINE)
    return [yaml.safe_load(re.sub(r"^#: ", "", block, flags=re.MULTILINE)) for block in blocks]


def test_ray_reads_the_cluster() -> None:
    config = read_by_ray(CLUSTER)
    types = config.get_node_type_configs()
    assert set(types) == {"head", SPOT, ON_DEMAND}
    assert config.get_head_node_type() == "head"
    for name in (SPOT, ON_DEMAND):
        assert (types[name].min_worker_nodes, types[name].max_worker_nodes) == (0, CLUSTER["max_workers"])
        assert types[name].resources["GPU"] == 1
    assert types["head"].max_worker_nodes == 1
    assert types["head"].resources == {"CPU": 0}


@pytest.mark.parametrize("wrong", [{"max_worker": 3}, {"max_workers": "many"}, {"provider": {}}])
def test_ray_would_complain(wrong: dict[str, Any]) -> None:
    with pytest.raises((jsonschema.ValidationError, KeyError, ValueError)):
        read_by_ray(CLUSTER | wrong)


def launched(demand: dict[str, float], count: int, availabilities: dict[str, float]) -> dict[str, int]:
    """How many nodes of which type Ray's autoscaler would start on an empty cluster."""
    config = read_by_ray(CLUSTER)
    demands = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(demand)] * count)
    request = SchedulingRequest(
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=demands,
        recoverable_resource_availabilities=availabilities,
        disable_launch_config_check=True,
    )

    class NoEvents:
        def log_cluster_scheduling_updates(self, *_: Any, **__: Any) -> None: ...

    reply = ResourceDemandScheduler(NoEvents()).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_spot_nodes_are_started_first_and_others_where_there_are_none() -> None:
    worker = {"GPU": 1.0, "CPU": 7.0}
    assert launched(worker, 3, {}) == {SPOT: 3}
    assert launched(worker, 3, {SPOT: 0.0}) == {ON_DEMAND: 3}
    assert launched({"CPU": 1.0}, 3, {}) == {SPOT: 1}  # decoding: never on the head


def test_ec2_takes_the_nodes() -> None:
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    types = CLUSTER["available_node_types"]
    for name, node in types.items():
        request = node["node_config"] | {"MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
    assert types[SPOT]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in types[ON_DEMAND]["node_config"]
    assert all("IamInstanceProfile" in node["node_config"] for node in types.values())


def test_ray_reads_the_other_provider() -> None:
    google = alternatives()[0]
    config = read_by_ray(CLUSTER | google)
    assert config.get_provider_config()["type"] == "gcp"
    assert set(config.get_node_type_configs()) == {"head", SPOT, ON_DEMAND}


def test_ray_reads_machines_of_ones_own(tmp_path: Path) -> None:
    own = alternatives()[1]
    key = tmp_path / "key"
    key.touch()
    own["auth"]["ssh_private_key"] = str(key)
    rest = {key: value for key, value in CLUSTER.items() if key not in ("head_node_type", "available_node_types")}
    config = read_by_ray(rest | own)
    (node_type,) = config.get_node_type_configs().values()
    assert node_type.min_worker_nodes == len(own["provider"]["worker_ips"])


def test_what_is_mounted_is_there_and_installed_with_its_extras() -> None:
    for remote, local in CLUSTER["file_mounts"].items():
        assert (ROOT / local).exists(), local
        assert remote.startswith("/home/ray/cnnsens_bench/")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = re.search(r"'\.\[(.*?)\]'", CLUSTER["setup_commands"][0])
    assert installed
    assert set(installed[1].split(",")) <= set(project["optional-dependencies"])
    assert "s3" in installed[1].split(",")  # the README offers output=s3://…
    assert f"'.[{installed[1]}]'" in KUBERAY.read_text()
    assert project["readme"] in [Path(local).name for local in CLUSTER["file_mounts"].values()]


def test_versions_agree_with_the_constraints() -> None:
    """The nodes' Ray and Python must be the driver's."""
    constraints = (ROOT / "constraints.txt").read_text()
    ray = re.search(r"^ray==(\S+)$", constraints, re.MULTILINE)
    python = re.search(r"under Python (\d+)\.(\d+)", constraints)
    assert ray
    assert python
    tag = f"{ray[1]}-py{python[1]}{python[2]}"
    images = re.findall(r"rayproject/ray:([\w.-]+)", UP.read_text() + KUBERAY.read_text())
    assert images.count(tag) == 1
    assert set(images) == {tag, f"{tag}-gpu"}
    assert RAY_CLUSTER["spec"]["rayVersion"] == ray[1]
    assert {c["image"] for c in containers()} == {f"REGISTRY/cnnsens-bench:ray{tag}"}
    checked_by = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["python_version"]
    assert checked_by == f"{python[1]}.{python[2]}"


def test_nothing_listens_beyond_the_cluster() -> None:
    start = " ".join(CLUSTER["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "security_group" not in CLUSTER["provider"]  # Ray's own lets in SSH only
    head = RAY_CLUSTER["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert head["serviceType"] == "ClusterIP"
    assert [port["containerPort"] for port in containers()[0]["ports"]] == [6379]
    assert "0.0.0.0" not in UP.read_text() + KUBERAY.read_text()


def test_a_stopped_job_has_time_to_end() -> None:
    for place in ("head", "worker"):  # a job that asks for a GPU starts on a worker
        assert "RAY_JOB_STOP_WAIT_TIME_S=60 ray start" in " ".join(CLUSTER[f"{place}_start_ray_commands"])
    for container in containers():
        assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"} in container["env"]


def test_every_machine_knows_the_shared_folder() -> None:
    assert "CNNSENS_STORAGE=/shared --env CNNSENS_CACHE=/shared/cache" in CLUSTER["docker"]["run_options"][-1]
    for container in containers():
        known = {entry["name"]: entry["value"] for entry in container["env"]}
        assert known["CNNSENS_STORAGE"] == "/shared"
        assert known["CNNSENS_CACHE"] == "/shared/cache"


def containers() -> list[dict[str, Any]]:
    """The head's, then the workers'."""
    spec = RAY_CLUSTER["spec"]
    return [c for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]) for c in pods(group)["containers"]]


def pods(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def test_rays_autoscaler_reads_the_manifest() -> None:
    config = _derive_autoscaling_config_from_ray_cr(
        RAY_CLUSTER | {"metadata": RAY_CLUSTER["metadata"] | {"namespace": "default"}}
    )
    types = AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs()
    assert types["headgroup"].resources["CPU"] == 0
    assert (types["gpu"].min_worker_nodes, types["gpu"].max_worker_nodes) == (0, 8)
    assert {key: types["gpu"].resources[key] for key in ("CPU", "GPU")} == {"CPU": 8, "GPU": 1}


def test_the_manifest_has_fields_of_kuberay_only() -> None:
    assert (RAY_CLUSTER["apiVersion"], RAY_CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    spec = RAY_CLUSTER["spec"]
    assert set(spec) <= KUBERAY_FIELDS[""]
    for key, known in KUBERAY_FIELDS.items():
        for part in spec[key] if isinstance(spec.get(key), list) else [spec.get(key, {})]:
            assert set(part) <= known or not key, key
    assert spec["enableInTreeAutoscaling"] is True
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def complaints(value: Any, kind: str, at: str = "") -> list[str]:
    """What the Kubernetes API's own types say against `value`: unknown fields, wrong types, absent fields."""
    listed, mapped = re.fullmatch(r"list\[(.+)\]", kind), re.fullmatch(r"dict[\[(]str, ?(.+)[\])]", kind)
    if listed:
        if not isinstance(value, list):
            return [f"{at} is no list"]
        return [text for i, item in enumerate(value) for text in complaints(item, listed[1], f"{at}[{i}]")]
    if mapped:
        return [text for key, item in value.items() for text in complaints(item, mapped[1], f"{at}.{key}")]
    if kind in ("str", "int", "bool"):
        good = type(value).__name__ == kind
        return [] if good else [f"{at} is {value!r}, no {kind}"]
    if kind == "object":
        return []
    model = getattr(kubernetes.client.models, kind)
    fields = {name: (key, model.openapi_types[key]) for key, name in model.attribute_map.items()}
    unknown = [f"{at}.{name} is unknown" for name in value if name not in fields]
    inner = [t for n, v in value.items() if n in fields for t in complaints(v, fields[n][1], f"{at}.{n}")]
    try:
        model(**{fields[name][0]: item for name, item in value.items() if name in fields})
    except ValueError as error:
        inner.append(f"{at}: {error}")
    return unknown + inner


def test_kubernetes_takes_the_pods_and_the_claim() -> None:
    spec = RAY_CLUSTER["spec"]
    assert complaints(CLAIM, "V1PersistentVolumeClaim", "claim") == []
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert complaints(group["template"], "V1PodTemplateSpec", "template") == []
        volumes = {volume["name"]: volume for volume in pods(group)["volumes"]}
        for container in pods(group)["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(mounts) <= set(volumes)
            assert mounts["shared"] == "/shared"
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert complaints(spec["autoscalerOptions"]["resources"], "V1ResourceRequirements") == []
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_kubernetes_would_complain() -> None:
    assert complaints({"spec": {"containers": [{"image": "x"}]}}, "V1PodTemplateSpec")
    assert complaints({"spec": {"container": [], "containers": []}}, "V1PodTemplateSpec")
    assert complaints(
        {"spec": {"containers": [{"name": "x", "env": [{"name": "A", "value": 60}]}]}}, "V1PodTemplateSpec"
    )


def test_spot_nodes_of_kubernetes_are_tolerated_and_preferred() -> None:
    worker = pods(RAY_CLUSTER["spec"]["workerGroupSpecs"][0])
    tolerated = {toleration["key"] for toleration in worker["tolerations"]}
    assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "nvidia.com/gpu"} <= tolerated
    affinity = worker["affinity"]["nodeAffinity"]
    assert set(affinity) == {"preferredDuringSchedulingIgnoredDuringExecution"}  # else no fallback
