"""infra/terraform: formatted, valid, and applied, planned and destroyed against a moto server."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nanosft.submit.overlay import ACCOUNTS
from tests.conftest import open_raw_client
from tests.servers import find_free_ports, run_process

MODULE = Path(__file__).parents[2] / "infra" / "terraform"
BUCKET = "nanosft-terraform-test"
OIDC_PROVIDER = "arn:aws:iam::123456789012:oidc-provider/oidc.example.org/id/ABC"
# What moto cannot tell: virtual-hosted buckets, and the instance metadata service.
OVERRIDE = """
provider "aws" {
  s3_use_path_style           = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
}
"""


@dataclass(frozen=True)
class Terraform:
    """terraform in a copy of the module; its provider is set up."""

    program: str
    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command; fails the test with its output when the exit code is not expected."""
        command = [self.program, f"-chdir={self.folder}", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode in codes, f"{arguments[0]} exited with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def program() -> str:
    found = shutil.which("terraform")
    if found is None:
        pytest.skip("terraform is not on this machine: infra/terraform is not checked")
    return found


@pytest.fixture(scope="module")
def aws_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A moto server that knows AWS' own IAM policies."""
    (port,) = find_free_ports(1)
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    env = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    with run_process(command, ports=[port], log=tmp_path_factory.mktemp("moto") / "moto.log", env=env):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def terraform(program: str, aws_url: str, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    folder = tmp_path_factory.mktemp("terraform")
    for path in MODULE.glob("*.tf"):
        shutil.copy(path, folder)
    (folder / "test_override.tf").write_text(OVERRIDE)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    made = Terraform(program, folder, env)
    plugins = [f"-plugin-dir={path}" for path in _plugin_dirs()[:1]]
    command = [program, f"-chdir={folder}", "init", "-input=false", *plugins]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(
            "terraform's AWS provider is neither here (TF_PLUGIN_DIR) nor within reach: infra/terraform is not applied"
        )
    return made


def test_the_module_is_formatted(program: str) -> None:
    done = subprocess.run(
        [program, "fmt", "-check", "-diff", "-recursive", str(MODULE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_module_is_valid(terraform: Terraform) -> None:
    assert json.loads(terraform.run("validate", "-json"))["diagnostics"] == []


@pytest.mark.timeout(600)  # the provider itself waits a minute until a lifecycle rule has settled
def test_it_applies_settles_and_leaves_nothing(terraform: Terraform, aws_url: str) -> None:
    cluster = '-var=cluster={subnet_ids = ["subnet-1", "subnet-2"]}'
    variables = ["-input=false", f"-var=bucket={BUCKET}", "-var=create_cluster=true", cluster]
    terraform.run("apply", "-auto-approve", *variables)
    client = open_raw_client(aws_url)
    _check_bucket(client)
    outputs = json.loads(terraform.run("output", "-json"))
    assert outputs["store"]["value"] == f"s3://{BUCKET}"
    assert set(outputs["role_arns"]["value"]) == set(ACCOUNTS)

    assert len(terraform.run("state", "list").splitlines()) >= 20
    planned = terraform.run("plan", "-detailed-exitcode", "-json", *variables, codes=(0, 2))
    said = [json.loads(line) for line in planned.splitlines()]
    assert said[-1]["type"] in {"change_summary", "outputs"}  # it came to its end
    changed = {item["change"]["resource"]["addr"] for item in said if item["type"] == "planned_change"}
    # moto invents an SSH key for node groups, which no plan can settle.
    assert changed <= {"aws_eks_node_group.cpu[0]", "aws_eks_node_group.gpu[0]"}

    terraform.run("destroy", "-auto-approve", *variables)
    assert client.list_buckets()["Buckets"] == []


def test_without_a_cluster_no_role_is_made_and_with_ones_own_each_trusts_one_account(terraform: Terraform) -> None:
    variables = ["-input=false", "-refresh=false", f"-var=bucket={BUCKET}", "-out=other", "-target=aws_iam_role.stage"]
    terraform.run("plan", *variables)
    assert not _planned_roles(terraform)
    terraform.run("plan", *variables, f"-var=oidc_provider_arn={OIDC_PROVIDER}")
    roles = _planned_roles(terraform)
    assert set(roles) == {f"nanosft-{account}" for account in ACCOUNTS}
    for name, role in roles.items():
        (statement,) = json.loads(role["assume_role_policy"])["Statement"]
        conditions = statement["Condition"]["StringEquals"]
        assert conditions["oidc.example.org/id/ABC:sub"] == f"system:serviceaccount:nanosft:{name}"


def test_pod_identity_trusts_the_clusters_agent_and_associates_each_account(terraform: Terraform) -> None:
    variables = ["-input=false", "-refresh=false", f"-var=bucket={BUCKET}", "-var=pod_identity=true", "-out=other"]
    target = "-target=aws_eks_pod_identity_association.stage"  # and the roles that it needs
    terraform.run("plan", *variables, "-var=cluster_name=mine", target)
    for role in _planned_roles(terraform).values():
        (statement,) = json.loads(role["assume_role_policy"])["Statement"]
        assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    planned = json.loads(terraform.run("show", "-json", "other"))["resource_changes"]
    made = [item["change"]["after"] for item in planned if item["type"] == "aws_eks_pod_identity_association"]
    assert {item["service_account"] for item in made} == {f"nanosft-{account}" for account in ACCOUNTS}
    assert {item["cluster_name"] for item in made} == {"mine"}


def _planned_roles(terraform: Terraform) -> dict[str, Any]:
    planned = json.loads(terraform.run("show", "-json", "other"))
    found = [item for item in planned.get("resource_changes", []) if item["type"] == "aws_iam_role"]
    return {item["change"]["after"]["name"]: item["change"]["after"] for item in found}


def _check_bucket(client: Any) -> None:
    assert client.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    access = client.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert all(access.values())
    assert len(access) == 4
    (rule,) = client.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    rules = {item["ID"]: item for item in client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]}
    assert rules["abort-incomplete-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 3
    assert rules["expire-state-first"]["Expiration"]["Days"] == 30
    assert rules["expire-state-first"]["Filter"]["Prefix"] == "first/model/state/"


def _plugin_dirs() -> list[Path]:
    """Directories that hold the AWS provider, laid out as terraform's -plugin-dir wants them."""
    named = [Path(os.environ["TF_PLUGIN_DIR"])] if "TF_PLUGIN_DIR" in os.environ else []
    places = [Path("/opt"), Path("/usr/local/share/terraform"), Path.home() / ".terraform.d"]
    found = [path.parents[2] for place in places for path in sorted(place.glob("*/*/hashicorp/aws"))]
    return named + found
