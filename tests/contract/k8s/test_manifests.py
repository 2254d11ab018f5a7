"""Every manifest: valid for its API, and true of the CLI, the settings and the exit codes that are there."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it has no type hints
import pytest
import yaml

from nanosft import __version__, errors
from nanosft.settings import StageSettings, load_settings, unknown_variables
from nanosft.settings.base import ENV_PREFIX
from nanosft.settings.serve import ServeSettings
from tests.cluster.manifests import K8S, Manifest, find, pod_specs, read, render_once
from tests.cluster.pod import expand
from tests.contract.k8s.commands import command_lines, parse, variables

OVERLAYS = {
    "k8s": K8S,
    "base": K8S / "base",
    **{path.name: path for path in sorted((K8S / "overlays").iterdir())},
}
TRAINJOBS = ("trainjob", "gpu-trainjob", "local-trainjob")
VERSIONS = ("1.31", "1.35", "1.36", "1.37")
"""The oldest that k8s/README.md names, and the newest three."""
CRDS = {
    "PyTorchJob": "kubeflow.org_pytorchjobs.yaml",
    "TrainJob": "trainer.kubeflow.org_trainjobs.yaml",
    "TrainingRuntime": "trainer.kubeflow.org_trainingruntimes.yaml",
}
SERVE_FILE = "serve.yaml"
PLAIN_FILES = (K8S / SERVE_FILE, *sorted((K8S / "cluster").iterdir()))
STAGE_FILES = ("generate-job.yaml", "mix-job.yaml", "sft-job.yaml", "eval-job.yaml", "report-job.yaml")
PERMANENT = {errors.ConfigError.exit_code, errors.DataError.exit_code, errors.CreditError.exit_code}
ALL_CODES = PERMANENT | {
    errors.TrainError.exit_code,
    errors.StoreError.exit_code,
    errors.EXIT_UNEXPECTED,
    errors.EXIT_RETRY,
    errors.EXIT_SIGINT,
    errors.EXIT_SIGTERM,
}
OTHER_VARIABLES = re.compile(
    r"AWS_(REGION|ENDPOINT_URL|ACCESS_KEY_ID|SECRET_ACCESS_KEY)|OPENROUTER_API_KEY|OMP_NUM_THREADS"
    r"|NCCL_(DEBUG|SOCKET_IFNAME)|JOB_(MARKS_FAILURE|BACKOFF_LIMIT)|RESUMES"
)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
every_trained = pytest.mark.parametrize("overlay", ["base", "local", "gpu", "held"])
every_trainjob = pytest.mark.parametrize("overlay", TRAINJOBS)


def _render(overlay: str) -> tuple[Manifest, ...]:
    return render_once(OVERLAYS[overlay])


def _config_maps(manifests: tuple[Manifest, ...] | list[Manifest]) -> dict[str, dict[str, str]]:
    return {item["metadata"]["name"]: item["data"] for item in manifests if item["kind"] == "ConfigMap"}


def _pods(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    for item in manifests:
        for where, spec in pod_specs(item):
            yield f"{item['kind']}/{item['metadata']['name']}{where}", spec


def _containers(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    for where, spec in _pods(manifests):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield f"{where}:{container['name']}", container


@pytest.mark.parametrize("version", VERSIONS)
def test_built_in_objects_meet_the_strict_schema(version: str) -> None:
    objects = [item for overlay in OVERLAYS for item in _render(overlay) if item["kind"] not in CRDS]
    objects += [item for path in PLAIN_FILES for item in read(path.read_text())]
    different = {repr(item): item for item in objects}
    assert len(different) >= 30
    for item in different.values():
        kubernetes_validate.validate(item, version, strict=True)


@every_overlay
def test_custom_objects_meet_their_crd_and_have_no_field_unknown_to_it(overlay: str, shared: Path) -> None:
    checked = [item for item in _render(overlay) if item["kind"] in CRDS]
    expected = {"TrainJob", "TrainingRuntime"} if overlay in TRAINJOBS else {"PyTorchJob"}
    assert {item["kind"] for item in checked} == expected
    for item in checked:
        jsonschema.Draft202012Validator(_schema(shared, item)).validate(item)


@every_overlay
def test_no_default_of_a_crd_is_left_out_of_a_list(overlay: str, shared: Path) -> None:
    """Every further apply took the PyTorchJob for changed: the API server had filled `protocol: TCP` into its ports."""
    for item in _render(overlay):
        if item["kind"] in CRDS:
            assert list(_defaults_left_out(_schema(shared, item), item, "", in_list=False)) == []


def _defaults_left_out(schema: Any, value: Any, path: str, *, in_list: bool) -> Iterator[str]:
    """Paths of fields that a CRD gives a default to and that stand in a list, where kubectl cannot merge it away."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from _defaults_left_out(inner, value[name], f"{path}/{name}", in_list=in_list)
            elif in_list and "default" in inner:
                yield f"{path}/{name}"
        inner = schema.get("additionalProperties")
        if isinstance(inner, dict):
            for name in value.keys() - schema.get("properties", {}).keys():
                yield from _defaults_left_out(inner, value[name], f"{path}/{name}", in_list=in_list)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _defaults_left_out(schema.get("items", {}), item, f"{path}/{index}", in_list=True)


def test_a_port_without_its_protocol_would_be_found(shared: Path) -> None:
    job = copy.deepcopy(find(_render("base"), "PyTorchJob", "nanosft-sft"))
    del job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"]
    (found,) = _defaults_left_out(_schema(shared, job), job, "", in_list=False)
    assert found.endswith("/Master/template/spec/containers/0/ports/0/protocol")


def test_the_crd_check_sees_an_unknown_field(shared: Path) -> None:
    job = find(_render("base"), "PyTorchJob", "nanosft-sft")
    wrong = {**job, "spec": {**job["spec"], "nprocsPerNode": "1"}}
    assert not jsonschema.Draft202012Validator(_schema(shared, job)).is_valid(wrong)


@every_overlay
def test_every_command_and_flag_is_one_of_the_cli(overlay: str) -> None:
    calls = 0
    for where, container in _containers(_render(overlay)):
        for line in command_lines(container):
            calls += 1
            assert list(parse(line)), where
    assert calls >= 6


@every_overlay
def test_every_variable_is_a_setting_and_every_value_is_accepted(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = _render(overlay)
    loaded = set()
    for where, container in _containers(manifests):
        values = variables(container, _config_maps(manifests))
        assert not unknown_variables(StageSettings.__subclasses__(), values), where
        others = {name for name in values if not name.startswith(ENV_PREFIX)}
        assert all(OTHER_VARIABLES.fullmatch(name) for name in others), (where, others)
        with monkeypatch.context() as patch:
            for name, value in values.items():
                patch.setenv(name, value)
            for line in command_lines(container):
                for call in parse([expand(word, values) for word in line]):
                    load_settings(call.cls, call.options)
                    loaded.add(call.cls.command)
    assert loaded - {"doctor"} == {"generate", "mix", "train", "eval", "report", "launch", "wait"}


@every_overlay
def test_every_variable_of_a_config_map_means_something_to_a_command_that_gets_it(overlay: str) -> None:
    manifests = _render(overlay)
    read_by: dict[str, set[str]] = {}
    for _, container in _containers(manifests):
        fields = {name for line in command_lines(container) for call in parse(line) for name in call.cls.model_fields}
        for source in container["envFrom"]:
            read_by.setdefault(source["configMapRef"]["name"], set()).update(fields)
    for name, data in _config_maps(manifests).items():
        settings = {key.removeprefix(ENV_PREFIX).lower() for key in data if key.startswith(ENV_PREFIX)}
        assert settings <= read_by.get(name, set()), name


@every_overlay
def test_exit_codes_in_policies_are_those_of_the_contract(overlay: str) -> None:
    rules = 0
    for item in _render(overlay):
        for spec in _job_specs(item):
            names = {
                container["name"]
                for key in ("initContainers", "containers")
                for container in spec["template"]["spec"].get(key, [])
            }
            for rule in spec["podFailurePolicy"]["rules"]:
                codes = rule.get("onExitCodes")
                if codes is None:
                    assert rule == {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                    continue
                rules += 1
                assert codes["containerName"] in names
                assert set(codes["values"]) <= ALL_CODES
                if rule["action"] == "FailJob":
                    assert set(codes["values"]) <= PERMANENT | {errors.TrainError.exit_code}
                else:
                    assert (rule["action"], codes["values"]) == ("Ignore", [errors.EXIT_SIGTERM])
    assert rules >= 5


def test_codes_that_the_training_operator_restarts_are_those_worth_a_retry() -> None:
    retried = {code for code in ALL_CODES if code >= 128}
    assert retried == {errors.EXIT_RETRY, errors.EXIT_SIGINT, errors.EXIT_SIGTERM}
    assert {errors.ConfigError.exit_code, errors.DataError.exit_code, errors.TrainError.exit_code}.isdisjoint(retried)


@every_overlay
def test_generate_has_one_completion_for_each_shard_and_gives_up_as_a_whole(overlay: str) -> None:
    manifests = _render(overlay)
    spec = find(manifests, "Job", "nanosft-generate")["spec"]
    assert spec["completionMode"] == "Indexed"
    assert str(spec["completions"]) == _config_maps(manifests)["nanosft-generate"]["NANOSFT_NUM_SHARDS"]
    assert spec["parallelism"] <= spec["completions"]
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["maxFailedIndexes"] == 0  # the test cluster stands on it
    fail = [rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert [set(values) for values in fail] == [PERMANENT]


@every_trained
def test_preflight_is_told_the_size_that_the_operator_gives_the_job(overlay: str) -> None:
    manifests = _render(overlay)
    spec = find(manifests, "PyTorchJob", "nanosft-sft")["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    assert replicas["Master"]["template"] == replicas["Worker"]["template"]
    for replica in replicas.values():
        assert replica["restartPolicy"] == "ExitCode"
        _check_size(
            replica["template"]["spec"],
            num_nodes=sum(item["replicas"] for item in replicas.values()),
            ranks_per_node=spec["nprocPerNode"],
            with_gpu="local" not in overlay,
        )


@every_trainjob
def test_preflight_is_told_the_size_of_the_trainjob(overlay: str) -> None:
    manifests = _render(overlay)
    trainer = find(manifests, "TrainJob", "nanosft-sft")["spec"]["trainer"]
    runtime = find(manifests, "TrainingRuntime", "nanosft-sft")
    ((_, pod),) = pod_specs(runtime)
    assert runtime["spec"]["mlPolicy"]["numNodes"] == trainer["numNodes"]
    _check_size(
        pod,
        num_nodes=trainer["numNodes"],
        ranks_per_node=str(trainer["numProcPerNode"]),
        with_gpu="local" not in overlay,
    )
    assert pod["containers"][0]["resources"] == trainer["resourcesPerNode"]
    assert not any(item["kind"] == "PyTorchJob" for item in manifests)


def _check_size(pod: Manifest, *, num_nodes: int, ranks_per_node: str, with_gpu: bool) -> None:
    (preflight,) = [item for item in pod["initContainers"] if item["name"] == "preflight"]
    env = {item["name"]: item.get("value") for item in preflight["env"]}
    assert (env["NANOSFT_PREFLIGHT_NODES"], env["NANOSFT_PREFLIGHT_RANKS_PER_NODE"]) == (str(num_nodes), ranks_per_node)
    main = pod["containers"][0]
    assert preflight["resources"] == main["resources"], "it checks memory against the device that training gets"
    for kind in ("requests", "limits"):
        assert main["resources"][kind].get("nvidia.com/gpu") == (ranks_per_node if with_gpu else None)
    shm = {item["name"]: item for item in pod["volumes"]}["shm"]
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in main["volumeMounts"]


@every_overlay
def test_the_ranks_know_the_grace_period_of_their_pod(overlay: str) -> None:
    manifests = _render(overlay)
    told = _config_maps(manifests)["nanosft-sft"]["NANOSFT_GRACE_S"]
    periods = {
        str(spec["terminationGracePeriodSeconds"]) for where, spec in _pods(manifests) if "nanosft-sft/" in where
    }
    assert periods == {told}


def test_the_training_operator_finds_its_container_and_its_port() -> None:
    replicas = find(_render("base"), "PyTorchJob", "nanosft-sft")["spec"]["pytorchReplicaSpecs"]
    main = replicas["Master"]["template"]["spec"]["containers"][0]
    assert main["name"] == "pytorch"
    assert [port["name"] for port in main["ports"]] == ["pytorchjob-port"]
    assert main["args"][0].splitlines()[-1] == "exec nanosft launch train"  # SIGTERM reaches launch, not the shell


@every_overlay
def test_each_stage_waits_for_what_the_one_before_puts(overlay: str) -> None:
    config = _config_maps(_render(overlay))
    assert config["nanosft-mix"]["NANOSFT_URI"] == config["nanosft-generate"]["NANOSFT_OUT"]
    assert config["nanosft-sft"]["NANOSFT_DATA"] == config["nanosft-mix"]["NANOSFT_OUT"]
    assert config["nanosft-eval"]["NANOSFT_MODEL"] == config["nanosft-sft"]["NANOSFT_OUT"]
    assert f'"{config["nanosft-generate"]["NANOSFT_OUT"]}"' in config["nanosft-recipe"]["recipe.toml"]


@every_overlay
def test_a_wait_ends_before_its_jobs_deadline(overlay: str) -> None:
    manifests = _render(overlay)
    mix = find(manifests, "Job", "nanosft-mix")["spec"]
    generate = find(manifests, "Job", "nanosft-generate")["spec"]
    assert generate["activeDeadlineSeconds"] <= _timeout(mix["template"]["spec"]) < mix["activeDeadlineSeconds"]
    for where, pod in _pods(manifests):
        if "nanosft-sft/" in where:
            assert _timeout(pod) >= mix["activeDeadlineSeconds"]
    evaluation = find(manifests, "Job", "nanosft-eval")["spec"]
    trained = [_deadline(item) for item in manifests if item["kind"] in ("PyTorchJob", "TrainingRuntime")]
    assert max(trained) <= _timeout(evaluation["template"]["spec"]) < evaluation["activeDeadlineSeconds"]
    report = find(manifests, "Job", "nanosft-report")["spec"]
    assert evaluation["activeDeadlineSeconds"] <= _timeout(report["template"]["spec"]) < report["activeDeadlineSeconds"]


def _deadline(item: Manifest) -> float:
    """Of a training job, wherever it states it."""
    if item["kind"] == "PyTorchJob":
        return float(item["spec"]["runPolicy"]["activeDeadlineSeconds"])
    return max(float(spec.get("activeDeadlineSeconds", 0)) for spec in _job_specs(item))


@every_overlay
def test_an_unmet_requirement_fails_the_evaluation_at_once(overlay: str) -> None:
    spec = find(_render(overlay), "Job", "nanosft-eval")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    codes = [
        rule["onExitCodes"]["values"]
        for rule in spec["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob" and rule["onExitCodes"]["containerName"] == container["name"]
    ]
    assert [set(values) for values in codes] == [PERMANENT]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (None if "local" in overlay else "1")


@every_overlay
def test_pods_of_stages_that_are_waited_for_know_whether_it_is_their_last_try(overlay: str) -> None:
    config, known = _config_maps(_render(overlay)), set()
    for item in _render(overlay):
        name = item["metadata"]["name"].removesuffix("-resume")
        for spec in _job_specs(item):
            for where, pod in pod_specs(spec):
                for container in [*pod.get("initContainers", []), *pod["containers"]]:
                    env = {entry["name"]: entry for entry in container["env"]}
                    if config[name].get("JOB_MARKS_FAILURE") != "true":
                        continue
                    known.add(name)
                    (field,) = env["JOB_FAILURE_COUNT"]["valueFrom"]["fieldRef"].values()
                    assert ("jobset" in field) == (item["kind"] == "TrainingRuntime"), where
                    limit = spec.get("backoffLimitPerIndex") or _restarts(item)
                    assert env["JOB_BACKOFF_LIMIT"]["value"] == str(limit), where
    assert known >= {"nanosft-generate", "nanosft-mix", "nanosft-eval"}
    assert config["nanosft-sft"]["JOB_MARKS_FAILURE"] == "true"


def _restarts(item: Manifest) -> int:
    return int(item["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"])


@pytest.mark.parametrize("overlay", ["gpu", "gpu-trainjob"])
def test_pods_with_whole_nodes_are_guaranteed(overlay: str) -> None:
    pods = [pod for where, pod in _pods(_render(overlay)) if "nanosft-sft" in where]
    assert pods
    for pod in pods:
        for container in [*pod["initContainers"], *pod["containers"]]:
            requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
            assert [requests[kind] for kind in ("cpu", "memory")] == [limits[kind] for kind in ("cpu", "memory")]


def test_the_quota_holds_one_run_of_the_gpu_overlay() -> None:
    (quota,) = read((K8S / "cluster" / "quota.yaml").read_text())
    gpus = 0
    for item in _render("gpu"):
        if item["kind"] == "PyTorchJob":
            for replica in item["spec"]["pytorchReplicaSpecs"].values():
                gpus += replica["replicas"] * _gpus(replica["template"]["spec"])
        elif item["kind"] == "Job":
            gpus += _gpus(item["spec"]["template"]["spec"])
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == str(gpus)


def _gpus(pod: Manifest) -> int:
    return int(pod["containers"][0]["resources"]["requests"].get("nvidia.com/gpu", 0))


def _timeout(pod: Manifest) -> float:
    ((arguments,),) = [command_lines(container) for container in pod["initContainers"][:1]]
    return float(arguments[arguments.index("--timeout") + 1])


@every_overlay
def test_mix_stays_within_the_limits_of_its_pod(overlay: str) -> None:
    manifests = _render(overlay)
    (container,) = find(manifests, "Job", "nanosft-mix")["spec"]["template"]["spec"]["containers"]
    data = _config_maps(manifests)["nanosft-mix"]
    num_processes = int(data["NANOSFT_WORKERS"]) + 1
    limits = container["resources"]["limits"]
    assert num_processes * int(data["NANOSFT_MEMORY_LIMIT"]) <= 1024 * int(limits["memory"].removesuffix("Gi"))
    assert int(data["NANOSFT_WORKERS"]) <= int(limits["cpu"])


@every_overlay
def test_our_containers_meet_pod_security_restricted(overlay: str) -> None:
    pods = list(_pods(_render(overlay)))
    assert len(pods) >= 3
    for where, pod in pods:
        _check_pod_security(where, pod)


def _check_pod_security(where: str, pod: Manifest) -> None:
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True, where
    assert security["runAsUser"] >= 1000, where
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), where
    assert all(set(volume) - {"name"} <= {"emptyDir", "configMap"} for volume in pod["volumes"]), where
    assert pod["automountServiceAccountToken"] is (pod["serviceAccountName"] == "nanosft-resume"), where
    assert pod["enableServiceLinks"] is False, where
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, where
        assert {"name": "scratch", "mountPath": "/scratch"} in container["volumeMounts"], where
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), where


@every_overlay
def test_images_are_this_version(overlay: str) -> None:
    images = {container["image"] for _, container in _containers(_render(overlay))}
    assert images <= {f"nanosft-cpu:{__version__}", f"nanosft-cuda:{__version__}"}
    assert ("cuda" in "".join(images)) == ("local" not in overlay)


@every_overlay
def test_objects_carry_the_recommended_labels_and_the_network_policy_selects_every_pod(overlay: str) -> None:
    manifests = _render(overlay)
    selected = find(manifests, "NetworkPolicy", "nanosft")["spec"]["podSelector"]["matchLabels"]
    for item in manifests:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "nanosft"
        assert (labels["app.kubernetes.io/version"], labels["app.kubernetes.io/managed-by"]) == (
            __version__,
            "kustomize",
        )
        if item["kind"] not in ("Namespace", "NetworkPolicy"):
            assert "app.kubernetes.io/component" in labels
        # Accounts are shared by all runs: a run's label would be written over by the next.
        assert ("app.kubernetes.io/instance" in labels) == (item["kind"] not in ("Namespace", "ServiceAccount"))
    templates = [labels for item in manifests for labels in _template_labels(item)]
    assert len(templates) >= 3
    for labels in templates:
        assert selected.items() <= labels.items()


def _template_labels(value: Any) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            yield value["metadata"]["labels"]
        else:
            for item in value.values():
                yield from _template_labels(item)
    elif isinstance(value, list):
        for item in value:
            yield from _template_labels(item)


@pytest.mark.parametrize("name", [*STAGE_FILES, SERVE_FILE])
def test_a_stages_file_stands_alone(name: str) -> None:
    manifests = read((K8S / name).read_text())
    names = {(item["kind"], item["metadata"]["name"]) for item in manifests}
    for item in manifests:
        for where, pod in pod_specs(item):
            assert ("ServiceAccount", pod["serviceAccountName"]) in names, where
            for volume in pod["volumes"]:
                assert "configMap" not in volume or ("ConfigMap", volume["configMap"]["name"]) in names
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                for source in container["envFrom"]:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in names
                sources = [entry["valueFrom"] for entry in container["env"] if "valueFrom" in entry]
                secrets = [source["secretKeyRef"] for source in sources if "fieldRef" not in source]
                assert {secret["name"] for secret in secrets} == {"nanosft"}
                assert all(secret["optional"] for secret in secrets)


def test_serve_waits_for_its_model_and_tells_the_kubelet_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = tuple(read((K8S / SERVE_FILE).read_text()))
    deployment, service = find(manifests, "Deployment", "nanosft-serve"), find(manifests, "Service", "nanosft-serve")
    policy = find(manifests, "NetworkPolicy", "nanosft-serve")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = (deployment["spec"]["selector"], policy["spec"]["podSelector"])
    assert [*(item["matchLabels"] for item in selectors), service["spec"]["selector"]] == [labels] * 3
    assert (
        find(_render("base"), "NetworkPolicy", "nanosft")["spec"]["podSelector"]["matchLabels"].items()
        <= labels.items()
    )
    ((where, pod),) = _pods(manifests)
    _check_pod_security(where, pod)
    config = _config_maps(manifests)
    assert config["nanosft-serve"]["NANOSFT_MODEL"] == _config_maps(_render("base"))["nanosft-sft"]["NANOSFT_OUT"]
    monkeypatch.setenv("NANOSFT_API_KEY", "of the Secret")
    for container in (*pod["initContainers"], *pod["containers"]):
        values = variables(container, config)
        assert all(name.startswith(ENV_PREFIX) or OTHER_VARIABLES.fullmatch(name) for name in values)
        assert not unknown_variables(StageSettings.__subclasses__(), values)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        for line in command_lines(container):
            for call in parse([expand(word, values) for word in line]):
                loaded = load_settings(call.cls, call.options)
    assert isinstance(loaded, ServeSettings)
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"], loaded.is_local) == ("http", loaded.port, False)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert loaded.grace_s + sleep_s < pod["terminationGracePeriodSeconds"]


def test_serve_needs_a_key() -> None:
    (config,) = _config_maps(read((K8S / SERVE_FILE).read_text())).values()
    with pytest.raises(errors.ConfigError, match="set NANOSFT_API_KEY"):
        load_settings(ServeSettings, {"model": [config["NANOSFT_MODEL"]], "host": config["NANOSFT_HOST"]})


def test_the_api_key_goes_to_generate_alone() -> None:
    for where, container in _containers(_render("base")):
        names = {item["name"] for item in container["env"]}
        assert ("OPENROUTER_API_KEY" in names) == (container["name"] == "generate"), where


def test_no_secret_lies_among_the_manifests() -> None:
    files = [path for path in K8S.rglob("*.yaml") if path.is_file()]
    assert len(files) >= 15
    for path in files:
        assert "kind: Secret" not in path.read_text(), path


@pytest.mark.parametrize(
    "path",
    [K8S / name for name in (*STAGE_FILES, SERVE_FILE)]
    + [K8S / "kustomization.yaml"]
    + [OVERLAYS[o] / "kustomization.yaml" for o in ("local", "gpu", "trainjob")],
    ids=lambda path: str(path.relative_to(K8S)),
)
def test_each_file_opens_with_how_to_use_it(path: Path) -> None:
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    for word in ("apply", "watch", "logs", "clean up"):
        assert re.search(rf"^#\s+{word}\s+kubectl ", head, re.MULTILINE), word
    assert "kubectl delete -k" not in head, "that would take the namespace along, with every other run and the Secret"


def _job_specs(item: Manifest) -> Iterator[Manifest]:
    if item["kind"] == "Job":
        yield item["spec"]
    elif item["kind"] == "TrainingRuntime":
        for job in item["spec"]["template"]["spec"]["replicatedJobs"]:
            yield job["template"]["spec"]


_SCHEMAS: dict[str, Any] = {}


def _schema(shared: Path, item: Manifest) -> Any:
    """The CRD's OpenAPI schema as a JSON schema that refuses fields it does not name."""
    kind = item["kind"]
    if kind not in _SCHEMAS:
        crd = yaml.load((shared / "crds" / CRDS[kind]).read_text(), Loader=yaml.CSafeLoader)
        (version,) = [v for v in crd["spec"]["versions"] if item["apiVersion"].endswith(f"/{v['name']}")]
        schema = version["schema"]["openAPIV3Schema"]
        _close(schema)
        schema["properties"]["metadata"] = {"type": "object"}
        _SCHEMAS[kind] = schema
    return _SCHEMAS[kind]


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("anyOf", None)
            schema["type"] = ["integer", "string"]
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in list(schema.values()):
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)
