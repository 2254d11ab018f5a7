"""`nanosft submit --apply`, status, logs and delete: what kubectl is asked, with one that only answers and records."""

import json
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nanosft.errors import ConfigError
from nanosft.settings.run import SubmitSettings
from nanosft.submit import run_submit
from nanosft.submit.objects import read_objects
from nanosft.submit.plan import describe_costs

REAL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(REAL is None, reason="kubectl is not on this machine")
RESOURCES = "configmaps pods services deployments.apps jobs.batch networkpolicies.networking.k8s.io"
PYTORCHJOBS, TRAINJOBS = "pytorchjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org"
STAGES = ("generate", "mix", "sft")


@dataclass
class Kubectl:
    """A kubectl on the PATH that renders as the real one, and of a cluster knows what it is told."""

    folder: Path

    def __post_init__(self) -> None:
        script = f"""\
            #!/bin/sh
            if [ "$1" = kustomize ]; then exec {REAL} "$@"; fi
            printf '%s\\n' "$*" >>{self.folder}/calls
            case "$1" in
              api-resources) cat {self.folder}/resources ;;
              get) cat {self.folder}/jobs ;;
              apply) cat >{self.folder}/applied; echo applied ;;
              *) echo "$1 is done" ;;
            esac
            """
        self.install("kubectl", script)
        self.set_cluster([])

    def install(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(script))
        path.chmod(0o755)

    def set_cluster(self, jobs: list[dict[str, Any]], resources: str = f"{RESOURCES} {PYTORCHJOBS}") -> None:
        (self.folder / "jobs").write_text(json.dumps({"items": jobs}))
        (self.folder / "resources").write_text(resources.replace(" ", "\n"))

    def take_calls(self) -> list[str]:
        path = self.folder / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls

    @property
    def applied(self) -> list[dict[str, Any]]:
        return read_objects((self.folder / "applied").read_text())


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    made = Kubectl(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return made


def _submit(kubectl: Kubectl, text: str, *words: str, **settings: Any) -> None:
    (kubectl.folder / "run.toml").write_text(f'name = "x"\n{text}')
    settings = {"stages": STAGES, **settings}
    run_submit(SubmitSettings(run=(*words, str(kubectl.folder / "run.toml")), **settings))


def _as_found(item: dict[str, Any], condition: str | None) -> dict[str, Any]:
    """A job that was applied, as a cluster has it later."""
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {**item, "status": {"conditions": conditions}}


def _jobs(kubectl: Kubectl, **conditions: str | None) -> list[dict[str, Any]]:
    """What was applied, by stage, with its state; held jobs as they are."""
    found = []
    for item in kubectl.applied:
        stage = item["metadata"]["name"].removeprefix("nanosft-").removesuffix("-x")
        if item["kind"] in ("Job", "PyTorchJob") and stage in conditions:
            found.append(_as_found(item, conditions[stage]))
    return found


def _actions(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Job to what is done with it, as the plan says."""
    lines = capsys.readouterr().out.splitlines()
    words = [line.split(":")[0].split() for line in lines]
    return {pair[1].partition("/nanosft-")[2]: pair[0] for pair in words if len(pair) == 2 and "/nanosft-" in pair[1]}


def test_a_new_run_is_looked_for_and_then_applied(kubectl: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    _submit(kubectl, "", apply=True)
    assert _actions(capsys) == dict.fromkeys(("generate-x", "mix-x", "sft-x", "sft-resume-x"), "create")
    looked, got, applied = kubectl.take_calls()
    assert looked == "api-resources --output name"
    selector = "--namespace nanosft --selector app.kubernetes.io/instance=x --output json"
    assert got == f"get jobs.batch,{PYTORCHJOBS} {selector}"
    assert applied == "apply --namespace nanosft --filename -"


def test_what_failed_is_replaced_and_what_runs_or_is_complete_is_left_alone(
    kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Job that failed with exit 2 stayed `unchanged` after its ConfigMap was corrected."""
    _submit(kubectl, "", apply=True)
    kubectl.set_cluster(_jobs(kubectl, generate="Complete", mix="Failed", sft=None, **{"sft-resume": None}))
    kubectl.take_calls()
    capsys.readouterr()
    _submit(kubectl, "", apply=True)
    expected = {"generate-x": "keep", "mix-x": "replace", "sft-x": "keep", "sft-resume-x": "keep"}
    assert _actions(capsys) == expected
    calls = kubectl.take_calls()
    how = "--namespace nanosft --cascade foreground --wait --ignore-not-found"
    assert [call for call in calls if call.startswith("delete")] == [f"delete jobs.batch nanosft-mix-x {how}"]
    kinds = [(item["kind"], item["metadata"]["name"]) for item in kubectl.applied]
    assert ("Job", "nanosft-mix-x") in kinds
    assert ("ConfigMap", "nanosft-generate-x") in kinds
    assert not {("Job", "nanosft-generate-x"), ("PyTorchJob", "nanosft-sft-x")} & set(kinds), (
        "applied anew, a job that was resumed would be suspended again"
    )


def test_a_complete_job_with_other_settings_is_replaced(kubectl: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    """A larger `num` changed the ConfigMap, and the Job stayed complete."""
    _submit(kubectl, "", apply=True)
    kubectl.set_cluster(_jobs(kubectl, generate="Complete", mix="Complete", sft="Succeeded"))
    capsys.readouterr()
    _submit(kubectl, "[generate]\nnum = 2000", apply=True)
    actions = _actions(capsys)
    assert (actions["generate-x"], actions["mix-x"], actions["sft-x"]) == ("replace", "keep", "keep")
    kubectl.take_calls()
    _submit(kubectl, '[images]\ncuda = "r/nanosft-cuda:2"', apply=True)
    assert _actions(capsys)["sft-x"] == "replace", "its template is immutable"


def test_what_runs_with_other_settings_is_refused_before_anything_is_changed(
    kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ConfigMap had already changed when the Job's new image was refused."""
    _submit(kubectl, "", apply=True)
    kubectl.set_cluster(_jobs(kubectl, generate=None, mix="Failed"))
    kubectl.take_calls()
    with pytest.raises(ConfigError, match="Job/nanosft-generate-x runs with other settings: --force replaces it"):
        _submit(kubectl, "[generate]\nnum = 2000", apply=True)
    assert [call.split()[0] for call in kubectl.take_calls()] == ["api-resources", "get"]
    capsys.readouterr()
    _submit(kubectl, "[generate]\nnum = 2000", apply=True, force=True)
    assert _actions(capsys)["generate-x"] == "replace"


def test_a_job_that_waits_is_replaced_together_with_whoever_resumes_it(
    kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    _submit(kubectl, "", apply=True)
    kubectl.set_cluster(_jobs(kubectl, sft="Suspended", **{"sft-resume": "Complete"}))
    capsys.readouterr()
    _submit(kubectl, "[train]\nepochs = 3", apply=True)
    actions = _actions(capsys)
    assert (actions["sft-x"], actions["sft-resume-x"]) == ("replace", "replace")


@pytest.mark.parametrize(
    ("text", "resources", "message"),
    [
        ("", RESOURCES, "no PyTorchJob: install the kubeflow training operator"),
        ('trainer = "trainjob"', f"{RESOURCES} {PYTORCHJOBS}", "no TrainJob: install Kubeflow Trainer"),
        ('queue = "q"', f"{RESOURCES} {TRAINJOBS}", "queue: the cluster has no LocalQueue q"),
        ('gang = "volcano"', f"{RESOURCES} {PYTORCHJOBS}", "gang: the cluster has no PodGroup of volcano"),
    ],
)
def test_what_the_cluster_lacks_is_told_with_what_helps(
    text: str, resources: str, message: str, kubectl: Kubectl
) -> None:
    kubectl.set_cluster([], resources)
    with pytest.raises(ConfigError, match=message):
        _submit(kubectl, text, apply=True)
    assert [call.split()[0] for call in kubectl.take_calls()] == ["api-resources"]


def test_pod_groups_that_are_there_are_hinted_at(kubectl: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl.set_cluster([], f"{RESOURCES} {PYTORCHJOBS} podgroups.scheduling.x-k8s.io")
    _submit(kubectl, "[sft]\nnodes = 2", apply=True)
    assert 'gang = "coscheduling"' in capsys.readouterr().out


def test_status_logs_and_delete_find_a_run_by_its_label(kubectl: Kubectl, capfd: pytest.CaptureFixture[str]) -> None:
    where = "--namespace nanosft --selector app.kubernetes.io/instance=x"
    _submit(kubectl, "", "status", stages=())
    assert kubectl.take_calls()[1] == f"get jobs.batch,{PYTORCHJOBS},deployments.apps,pods {where}"
    _submit(kubectl, "", "logs", stages=("generate", "mix"), follow=True)
    chosen = f"{where},app.kubernetes.io/component in (generate, mix)"
    options = "--all-containers --ignore-errors --prefix --max-log-requests 1000 --tail -1 --follow"
    assert kubectl.take_calls() == [f"logs {chosen} {options}"]
    capfd.readouterr()
    _submit(kubectl, "", "delete", stages=())
    kinds = f"jobs.batch,{PYTORCHJOBS},deployments.apps,services,networkpolicies.networking.k8s.io,configmaps"
    assert kubectl.take_calls()[1] == f"delete {kinds} {where} --ignore-not-found"
    assert capfd.readouterr().out == "delete is done\n"


def test_logs_that_kubectl_cannot_show_are_an_error(kubectl: Kubectl) -> None:
    kubectl.install("kubectl", "#!/bin/sh\nexit 1\n")
    with pytest.raises(ConfigError, match="kubectl logs"):
        _submit(kubectl, "", "logs", stages=())


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (("restart",), {}, "restart: write status, logs, delete, or the run file alone"),
        (("delete",), {"force": True}, "--apply, --force and --pin are for the run file alone"),
        ((), {"follow": True}, "--follow: is for submit logs"),
    ],
)
def test_words_and_options_that_do_not_go_together_are_refused(
    words: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SubmitSettings(run=(*words, "run.toml"), **settings)


DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("tool", "question"),
    [
        ("crane", "digest IMAGE"),
        ("skopeo", "inspect --format {{.Digest}} docker://IMAGE"),
        ("docker", "buildx imagetools inspect --format {{.Manifest.Digest}} IMAGE"),
    ],
)
def test_pinned_images_have_the_digest_that_the_registry_has(
    tool: str, question: str, kubectl: Kubectl, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl.install(tool, f"#!/bin/sh\nprintf '%s\\n' \"$*\" >>{kubectl.folder}/asked\necho {DIGEST}\n")
    for name in ("cat", "sh"):
        (kubectl.folder / "bin" / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(kubectl.folder / "bin"))
    _submit(kubectl, '[images]\ncpu = "r.example:5000/a/nanosft-cpu:9"\ncuda = "r/nanosft-cuda@sha256:12"', pin=True)
    text = capsys.readouterr().out
    assert f"r.example:5000/a/nanosft-cpu@{DIGEST}" in text
    assert "r/nanosft-cuda@sha256:12" in text
    assert "nanosft-cpu:9" not in text
    asked = (kubectl.folder / "asked").read_text()
    assert asked == question.replace("IMAGE", "r.example:5000/a/nanosft-cpu:9") + "\n", "each image is asked for once"


def test_without_a_tool_nothing_is_pinned(kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(kubectl.folder / "bin"))
    with pytest.raises(ConfigError, match="none of crane, skopeo and docker"):
        _submit(kubectl, "", pin=True)


def test_a_tool_that_gives_no_digest_is_not_believed(kubectl: Kubectl) -> None:
    kubectl.install("crane", "#!/bin/sh\necho yes\n")
    with pytest.raises(ConfigError, match=r"crane gives no digest of nanosft-cpu:.*'yes'"):
        _submit(kubectl, "", pin=True, stages=("generate",))


def test_the_plan_says_what_it_costs_at_most(kubectl: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        '[generate]\nbudget_usd = 20\n[eval]\njudge_model = "a/b"\nbudget_usd = 3\n[sft]\nnodes = 2\nranks_per_node = 8'
    )
    _submit(kubectl, text, apply=True, stages=("generate", "mix", "sft", "eval"))
    lines = capsys.readouterr().out.splitlines()
    assert {line for line in lines if "at most" in line} == {
        "generate: at most 20.00 US dollars",
        "eval's judge: at most 3.00 US dollars",
        "eval: at most 60 GPU-hours (1 for 60 h)",
        "sft: at most 768 GPU-hours (16 for 48 h)",
    }


def test_what_has_no_bound_is_told_as_such() -> None:
    labels = {"app.kubernetes.io/component": "generate"}
    item = {"kind": "ConfigMap", "metadata": {"name": "nanosft-generate-x", "labels": labels}, "data": {}}
    assert describe_costs([item]) == ["generate: no budget_usd, so no bound"]
    assert describe_costs([{**item, "data": {"NANOSFT_PROVIDER": "offline"}}]) == []
