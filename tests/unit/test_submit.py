"""`nanosft submit`: what a run file says is what the manifests hold. Rendered by the real kubectl."""

import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest

from nanosft.errors import ConfigError
from nanosft.foreign import printable
from nanosft.settings.run import SubmitSettings
from nanosft.submit import run_submit
from nanosft.submit.objects import read_objects, write_objects
from nanosft.submit.run_file import parse_run
from tests.cluster.manifests import K8S, find, pod_specs, read

RUN = """
    name = "second"
    store = "s3://bucket/runs"
    base = "s3://bucket/bases/d20"
    overlay = "OVERLAY"
    recipe = "recipe.toml"
    parallelism = 3

    [images]
    cpu = "images.example.org:5000/team/nanosft-cpu:9"
    cuda = "images.example.org/nanosft-cuda@sha256:0123456789abcdef"

    [env]
    AWS_ENDPOINT_URL = "https://s3.example.org"

    [generate]
    num = 5000
    num_shards = 8
    strict_grounding = true
    fallback_models = ["a/b", "c/d"]

    [train]
    epochs = 2

    [eval]
    require = ["identity>=0.5"]

    [sft]
    nodes = 3
    ranks_per_node = 4
"""
OVERLAYS = ("base", "local", "gpu", "trainjob")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")


def _write(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text('[[sources]]\nname = "mine"\nuri = "{generated}"\n')
    path = folder / "run.toml"
    path.write_text(textwrap.dedent(text))
    return path


def _submit(folder: Path, text: str, capsys: pytest.CaptureFixture[str], **settings: Any) -> list[dict[str, Any]]:
    run_submit(SubmitSettings(run=(str(_write(folder, text)),), **settings))
    return read(capsys.readouterr().out)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sizes_names_images_and_prefixes_are_the_runs(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _submit(tmp_path, RUN.replace("OVERLAY", overlay), capsys)
    generate = find(found, "Job", "nanosft-generate-second")["spec"]
    assert (generate["completions"], generate["parallelism"]) == (8, 3)
    data = {item["metadata"]["name"]: item["data"] for item in found if item["kind"] == "ConfigMap"}
    expected = {
        "NANOSFT_OUT": "s3://bucket/runs/second/generated",
        "NANOSFT_NUM": "5000",
        "NANOSFT_NUM_SHARDS": "8",
        "NANOSFT_STRICT_GROUNDING": "true",
        "NANOSFT_FALLBACK_MODELS": '["a/b", "c/d"]',
        "AWS_ENDPOINT_URL": "https://s3.example.org",
    }
    assert expected.items() <= data["nanosft-generate-second"].items()
    expected = {
        "NANOSFT_BASE": "s3://bucket/bases/d20",
        "NANOSFT_DATA": "s3://bucket/runs/second/mixture",
        "NANOSFT_OUT": "s3://bucket/runs/second/model",
        "NANOSFT_EPOCHS": "2",
    }
    assert expected.items() <= data["nanosft-sft-second"].items()
    expected = {
        "NANOSFT_MODEL": "s3://bucket/runs/second/model",
        "NANOSFT_OUT": "s3://bucket/runs/second/evaluation",
        "NANOSFT_REQUIRE": '["identity>=0.5"]',
        "AWS_ENDPOINT_URL": "https://s3.example.org",
    }
    assert expected.items() <= data["nanosft-eval-second"].items()
    assert data["nanosft-mix-second"]["NANOSFT_URI"] == "s3://bucket/runs/second/generated"
    assert 'uri = "s3://bucket/runs/second/generated"' in data["nanosft-recipe-second"]["recipe.toml"]
    images = {c["image"] for item in found for _, pod in pod_specs(item) for c in pod["containers"]}
    cpu, cuda = "images.example.org:5000/team/nanosft-cpu:9", "images.example.org/nanosft-cuda@sha256:0123456789abcdef"
    assert images == ({cpu} if overlay == "local" else {cpu, cuda})


@needs_kubectl
@pytest.mark.parametrize("overlay", ["base", "local", "gpu"])
def test_the_training_job_has_the_runs_size_everywhere(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _submit(tmp_path, RUN.replace("OVERLAY", overlay), capsys)
    spec = find(found, "PyTorchJob", "nanosft-sft-second")["spec"]
    assert spec["nprocPerNode"] == "4"
    replicas = spec["pytorchReplicaSpecs"]
    assert (replicas["Master"]["replicas"], replicas["Worker"]["replicas"]) == (1, 2)
    for replica in replicas.values():
        _check_pod(replica["template"]["spec"], with_gpu=overlay != "local")


@needs_kubectl
def test_the_trainjob_has_the_runs_size_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _submit(tmp_path, RUN.replace("OVERLAY", "trainjob"), capsys)
    job, runtime = find(found, "TrainJob", "nanosft-sft-second"), find(found, "TrainingRuntime", "nanosft-sft-second")
    assert job["spec"]["runtimeRef"]["name"] == "nanosft-sft-second"
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 4)
    assert runtime["spec"]["mlPolicy"]["numNodes"] == 3
    ((_, pod),) = pod_specs(runtime)
    _check_pod(pod, with_gpu=True)
    assert trainer["resourcesPerNode"] == pod["containers"][0]["resources"]


def _check_pod(pod: dict[str, Any], *, with_gpu: bool) -> None:
    (preflight,) = [item for item in pod["initContainers"] if item["name"] == "preflight"]
    env = {item["name"]: item.get("value") for item in preflight["env"]}
    assert (env["NANOSFT_PREFLIGHT_NODES"], env["NANOSFT_PREFLIGHT_RANKS_PER_NODE"]) == ("3", "4")
    for container in (preflight, pod["containers"][0]):
        for kind in ("requests", "limits"):
            assert container["resources"][kind].get("nvidia.com/gpu") == ("4" if with_gpu else None)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_of_the_first_run_is_left_and_all_that_is_named_is_there(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _submit(tmp_path, RUN.replace("OVERLAY", overlay), capsys)
    names = {(item["kind"], item["metadata"]["name"]) for item in found}
    assert not any(kind == "Namespace" for kind, _ in names), "deleting the run would delete every other one"
    for item in found:
        assert not re.search(r"\bfirst\b", str(item)), item["metadata"]["name"]
        if item["kind"] != "ServiceAccount":  # a cloud role trusts these by name
            assert item["metadata"]["name"].endswith("-second")
        # Shared accounts carry no run's label: each run would write its own over it.
        expected = None if item["kind"] == "ServiceAccount" else "second"
        assert item["metadata"]["labels"].get("app.kubernetes.io/instance") == expected
        assert item["metadata"]["namespace"] == "nanosft"
        for _, pod in pod_specs(item):
            assert ("ServiceAccount", pod["serviceAccountName"]) in names
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                for source in container["envFrom"]:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in names
    policy = find(found, "NetworkPolicy", "nanosft-second")["spec"]
    assert str(policy).count("'app.kubernetes.io/instance': 'second'") == 3


@needs_kubectl
def test_a_queue_is_a_label_of_the_jobs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It landed on ConfigMaps, ServiceAccounts and the NetworkPolicy too."""
    found = _submit(tmp_path, 'name = "x"\nqueue = "gpu"\nhold = false', capsys)
    jobs = {("Job", name) for name in ("nanosft-generate-x", "nanosft-mix-x", "nanosft-eval-x", "nanosft-report-x")}
    queued = {
        (item["kind"], item["metadata"]["name"])
        for item in found
        if item["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name") == "gpu"
    }
    assert queued == {*jobs, ("TrainJob", "nanosft-sft-x")}
    assert str(found).count("queue-name") == len(queued), "and not of their pods"


@needs_kubectl
@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("", "PyTorchJob"),
        ('queue = "gpu"', "TrainJob"),
        ('queue = "gpu"\noverlay = "gpu"', "TrainJob"),
        ('queue = "gpu"\ntrainer = "pytorchjob"', "PyTorchJob"),
        ('trainer = "trainjob"\noverlay = "local"', "TrainJob"),
        ('overlay = "trainjob"', "TrainJob"),
    ],
)
def test_a_queued_run_takes_the_trainjob_unless_it_says_otherwise(
    lines: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    found = _submit(tmp_path, f'name = "x"\n{lines}', capsys, stages=("sft",))
    assert {item["kind"] for item in found} & {"PyTorchJob", "TrainJob"} == {kind}
    is_queued_pytorchjob = "queue" in lines and kind == "PyTorchJob"
    assert ("Kueue manages PyTorchJobs only where" in caplog.text) == is_queued_pytorchjob


@needs_kubectl
@pytest.mark.parametrize("lines", ["", 'overlay = "gpu"\ntrainer = "trainjob"', 'queue = "q"'])
def test_sft_and_eval_start_suspended_and_whoever_resumes_them_may_touch_nothing_else(
    lines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _submit(tmp_path, f'name = "x"\n{lines}', capsys)
    training = next(item for item in found if item["kind"] in ("PyTorchJob", "TrainJob"))
    spec = training["spec"]
    assert spec.get("suspend") or spec["runPolicy"]["suspend"]
    assert find(found, "Job", "nanosft-eval-x")["spec"]["suspend"] is True
    targets = []
    for stage in ("sft", "eval"):
        (container,) = find(found, "Job", f"nanosft-{stage}-resume-x")["spec"]["template"]["spec"]["containers"]
        targets += [item["value"] for item in container["env"] if item["name"] == "RESUMES"]
        assert container["args"][-2:] == (["--queue", "q"] if "queue" in lines else ["--resume", "$(RESUMES)"])
    assert targets == [f"{training['kind'].lower()}s/nanosft-sft-x", "jobs/nanosft-eval-x"]
    rules = find(found, "Role", "nanosft-resume-x")["rules"]
    allowed = [f"{rule['resources'][0]}/{rule['resourceNames'][0]}" for rule in rules]
    assert sorted(allowed) == sorted(targets)
    assert {tuple(rule["verbs"]) for rule in rules} == {("patch",)}
    (subject,) = find(found, "RoleBinding", "nanosft-resume-x")["subjects"]
    assert (subject["name"], subject["namespace"]) == ("nanosft-resume", "nanosft")
    queued = [item for item in found if "kueue.x-k8s.io/queue-name" in item["metadata"]["labels"]]
    assert not {item["metadata"]["name"] for item in queued} & {"nanosft-sft-x", "nanosft-eval-x"}, (
        "its label resumes it"
    )


@needs_kubectl
def test_a_hash_tells_of_any_change_of_what_makes_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def hashes(text: str) -> dict[str, str]:
        jobs = [item for item in _submit(tmp_path, text, capsys) if item["kind"] in ("Job", "PyTorchJob")]
        found = {item["metadata"]["name"]: item["metadata"]["annotations"]["nanosft.dev/hash"] for item in jobs}
        for item in jobs:
            assert str(item["spec"]).count(found[item["metadata"]["name"]]) == len(list(pod_specs(item)))
        return found

    plain = hashes('name = "x"')
    other = hashes('name = "x"\n[generate]\nnum = 7')
    assert {name for name in plain if plain[name] != other[name]} == {"nanosft-generate-x"}
    (tmp_path / "recipe.toml").unlink()
    other = hashes('name = "x"\nrecipe = "recipe.toml"')
    assert {name for name in plain if plain[name] != other[name]} == {"nanosft-mix-x"}
    assert hashes('name = "x"') == plain


@needs_kubectl
def test_a_priority_class_and_a_gang_reach_every_pod_of_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'name = "x"\npriority_class = "high"\ngang = "volcano"\n[sft]\nnodes = 3'
    found = _submit(tmp_path, text, capsys)
    assert {pod["priorityClassName"] for item in found for _, pod in pod_specs(item)} == {"high"}
    policy = find(found, "PyTorchJob", "nanosft-sft-x")["spec"]["runPolicy"]["schedulingPolicy"]
    assert policy == {"minAvailable": 3, "scheduleTimeoutSeconds": 300}
    found = _submit(tmp_path, f'trainer = "trainjob"\n{text}', capsys)
    assert find(found, "TrainingRuntime", "nanosft-sft-x")["spec"]["podGroupPolicy"] == {"volcano": {}}


@needs_kubectl
@pytest.mark.parametrize(
    ("lines", "wait"), [('mode = "batch"', "false"), ('mode = "batch"\nwait = true', "true"), ("", None)]
)
def test_generate_in_batch_mode_comes_back_for_its_batches(
    lines: str, wait: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _submit(tmp_path, f'name = "x"\n[generate]\n{lines}', capsys, stages=("generate",))
    rules = find(found, "Job", "nanosft-generate-x")["spec"]["podFailurePolicy"]["rules"]
    ignored = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "Ignore" and "onExitCodes" in rule]
    assert ([75] in ignored) == (wait == "false")
    assert find(found, "ConfigMap", "nanosft-generate-x")["data"].get("NANOSFT_WAIT") == wait


@needs_kubectl
def test_serve_is_a_stage_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _submit(tmp_path, 'name = "x"\n[serve]\nmax_batch = 3', capsys, stages=("serve",))
    deployment, service = find(found, "Deployment", "nanosft-serve-x"), find(found, "Service", "nanosft-serve-x")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget, policy = (find(found, kind, "nanosft-serve-x") for kind in ("PodDisruptionBudget", "NetworkPolicy"))
    for selector in (deployment["spec"]["selector"], budget["spec"]["selector"], policy["spec"]["podSelector"]):
        assert selector["matchLabels"].items() <= labels.items()
        assert selector["matchLabels"]["app.kubernetes.io/instance"] == "x"
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["selector"]["app.kubernetes.io/instance"] == "x"
    data = find(found, "ConfigMap", "nanosft-serve-x")["data"]
    assert data["NANOSFT_MODEL"] == "s3://nanosft/x/model"
    assert data["NANOSFT_MAX_BATCH"] == "3"
    assert not {item["kind"] for item in found} & {"Job", "PyTorchJob", "Role"}


@needs_kubectl
def test_one_node_has_no_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = RUN.replace("OVERLAY", "gpu").replace("nodes = 3", "nodes = 1")
    spec = find(_submit(tmp_path, text, capsys), "PyTorchJob", "nanosft-sft-second")["spec"]
    assert list(spec["pytorchReplicaSpecs"]) == ["Master"]


@needs_kubectl
def test_a_run_file_with_a_name_alone_keeps_the_overlays_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _submit(tmp_path, 'name = "x"', capsys)
    assert find(found, "Job", "nanosft-generate-x")["spec"]["completions"] == 4
    assert find(found, "ConfigMap", "nanosft-sft-x")["data"]["NANOSFT_BASE"] == "s3://nanosft/base"
    assert "NANOSFT_KNOWLEDGE" not in find(found, "ConfigMap", "nanosft-eval-x")["data"]
    assert 'uri = "s3://nanosft/x/generated"' in find(found, "ConfigMap", "nanosft-recipe-x")["data"]["recipe.toml"]


@needs_kubectl
def test_the_model_is_asked_about_what_it_was_made_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _submit(tmp_path, 'name = "x"\n[generate]\nknowledge = "s3://nanosft/knowledge/mine.md"', capsys)
    assert find(found, "ConfigMap", "nanosft-eval-x")["data"]["NANOSFT_KNOWLEDGE"] == "s3://nanosft/knowledge/mine.md"


@needs_kubectl
def test_other_stages_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _submit(tmp_path, 'name = "x"', capsys, stages=("sft",))
    kinds = {(item["kind"], item["metadata"]["name"]) for item in found}
    assert kinds == {
        ("ServiceAccount", "nanosft-resume"),
        ("Role", "nanosft-resume-x"),
        ("RoleBinding", "nanosft-resume-x"),
        ("NetworkPolicy", "nanosft-resume-x"),
        ("Job", "nanosft-sft-resume-x"),
        ("ServiceAccount", "nanosft-sft"),
        ("ConfigMap", "nanosft-sft-x"),
        ("PyTorchJob", "nanosft-sft-x"),
        ("NetworkPolicy", "nanosft-x"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "run.toml: not TOML"),
        ("", "run.toml: name: Field required"),
        ('name = "Second Run"', "run.toml: name: "),
        ('name = "x"\nshards = 3', "run.toml: shards: Extra inputs are not permitted"),
        ('name = "x"\n[generate]\nnum_shard = 3', "run.toml: generate.num_shard: Extra inputs"),
        ('name = "x"\n[generate]\nnum = 0', "run.toml: generate.num: Input should be greater than or equal to 1"),
        ('name = "x"\n[train]\ndtype = "int8"', "run.toml: train.dtype: "),
        ('name = "x"\n[eval]\nrequire = ["identity"]', "run.toml: eval.require: 'identity': write a figure"),
        ('name = "x"\n[sft]\nnodes = 0', "run.toml: sft.nodes: "),
        ('name = "x"\n[images]\ncpu = "a b"', "run.toml: images.cpu: is no image"),
        ('name = "x"\n[images]\ncpu = "a\\nb: c"', "run.toml: images.cpu: is no image"),
        ('name = "x\\n"', "run.toml: name: "),
        ('name = "../x"', "run.toml: name: "),
        ('name = "-x"', "run.toml: name: "),
        ('name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"', "run.toml: name: "),
        ("name = 7", "run.toml: name: "),
        ('name = "x"\nnamespace = "kube_system"', "run.toml: namespace: "),
        ('name = "x"\nnamespace = "a b"', "run.toml: namespace: "),
        ('name = "x"\nqueue = "Q!"', "run.toml: queue: "),
        ('name = "x"\npriority_class = "a/b"', "run.toml: priority_class: "),
        ('name = "x"\noverlay = "../../etc"', "run.toml: overlay: "),
        ('name = "x"\nstore = "s3://b/\\"\\nuri"', "run.toml: store: is no URI"),
        ('name = "x"\nbase = "s3://b/a b"', "run.toml: base: is no URI"),
        ('name = "x"\ntrainer = "mpi"', "run.toml: trainer: "),
        ('name = "x"\ntrainer = "pytorchjob"\noverlay = "trainjob"', "trainer: the overlay trainjob has a TrainJob"),
        ('name = "x"\nhold = 1', "run.toml: hold: "),
        ('name = "x"\ngang = "all"', "run.toml: gang: "),
        ('name = "x"\n[sft]\nnodes = 1e9', "run.toml: sft.nodes: "),
        ('name = "x"\n[sft]\nnodes = true', "run.toml: sft.nodes: "),
        ('name = "x"\n[generate]\nbase_url = "a\\nb"', "run.toml: generate.base_url: holds characters"),
        ('name = "x"\n[report]\nmax_tokens = -1', "run.toml: report.max_tokens: "),
        ('name = "x"\n[serve]\nport = 1', "run.toml: serve: port: is the manifest's"),
        ('name = "x"\n[serve]\nmodell = "x"', "run.toml: serve.modell: Extra inputs"),
        ('name = "x"\noverlay = "moon"', "overlay: .*moon has no kustomization.yaml"),
        ('name = "x"\nrecipe = "none.toml"', "none.toml: cannot be read"),
    ],
)
def test_a_wrong_run_file_is_refused_by_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_submit(SubmitSettings(run=(str(_write(tmp_path, text)),)))


def test_a_run_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere/run\.toml: cannot be read"):
        run_submit(SubmitSettings(run=("nowhere/run.toml",)))


def test_without_kubectl_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="kubectl is not on the PATH"):
        run_submit(SubmitSettings(run=(str(_write(tmp_path, 'name = "x"')),)))


def test_what_kubectl_complains_of_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'field is immutable' >&2\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="kubectl kustomize: field is immutable"):
        run_submit(SubmitSettings(run=(str(_write(tmp_path, 'name = "x"')),)))


@needs_kubectl
def test_manifests_elsewhere_serve_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "manifests"
    shutil.copytree(K8S / "base", folder / "base")
    found = _submit(tmp_path, 'name = "x"', capsys, manifests=str(folder))
    assert find(found, "PyTorchJob", "nanosft-sft-x")


def test_the_example_in_the_documentation_is_a_run_file() -> None:
    for path in (K8S / "README.md", Path(run_submit.__code__.co_filename)):
        text = path.read_text(encoding="utf-8")
        example = re.search(r'^( *)name = "second".*?ranks_per_node = \d+$', text, re.MULTILINE | re.DOTALL)
        assert example, path
        assert parse_run(textwrap.dedent(example[0]), where="example").name == "second"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('[env]\nAWS_SECRET_ACCESS_KEY = "hidden"', "env: AWS_SECRET_ACCESS_KEY: a ConfigMap is no place"),
        ('[env]\nHF_TOKEN = "hidden"', "env: HF_TOKEN: a ConfigMap is no place"),
        ('[env]\n"A B" = "hidden"', "env: 'A B' is no name of a variable"),
        ('[env]\n"A\\nB" = "hidden"', "is no name of a variable"),
        ('[env]\nA = "hid\\nden"', "env: A: its value holds characters"),
        ('[generate]\nopenrouter_api_key = "hidden"', "generate.openrouter_api_key: a ConfigMap is no place"),
        ("[generate]\nnum = true", "generate.num: Input should be a number"),
        ("[train]\nmax_steps = true", "train.max_steps: Input should be a number"),
        ("parallelism = 100000000000000000000", "parallelism: Input should be less than or equal to 100000"),
        ("parallelism = true", "parallelism: Input should be a valid integer"),
    ],
)
def test_what_no_configmap_may_hold_is_refused_by_its_name(lines: str, message: str) -> None:
    """Keys of a run file went into ConfigMaps, `num = true` and 10^20 pods into manifests."""
    with pytest.raises(ConfigError) as raised:
        parse_run(f'name = "x"\n{lines}', where="run.toml")
    assert message in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_what_only_sounds_secret_may_stand_in_a_run_file() -> None:
    env = 'NANOSFT_MAX_TOKENS = "9"\nAWS_WEB_IDENTITY_TOKEN_FILE = "/var/run/token"'
    assert len(parse_run(f'name = "x"\n[env]\n{env}', where="run.toml").env) == 2


def test_what_is_printed_of_a_run_is_what_is_applied():
    """Joiners, soft hyphens and new emoji were printed as six letters, which YAML took for themselves."""
    texts = [
        "mi\u200cro",
        "\U0001f468\u200d\U0001f469",
        "soft\xad",
        "\U0001fae8",
        "a\u200db\nc: d\n",
        "a\u2028b\nc",
        "plain",
        "a\nb\n",
    ]
    objects = [{"kind": "ConfigMap", "data": {str(number): text for number, text in enumerate(texts)}}]
    assert read_objects(printable(write_objects(objects))) == objects
