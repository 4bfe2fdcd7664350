"""The commands of both pipelines, run unchanged from the pipeline files, and the conditions of each job.

Stand-ins replace the programs that a laptop lacks (stand_ins.py). uv, kustomize, Git, make, `fleet` and the service
are real.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import osv, private_git, stand_ins
from tests.support.answers import VARIANTS
from tests.support.commands import git
from tests.support.pipelines import GITHUB, METADATA, Command, Event, GitHub, GitLab, Job
from tests.support.running import running
from tests.support.services import Birth, Render
from tests.support.stand_ins import DIGEST, Machine
from tests.support.tokens import trusted_issuer

# These tests are in the group of the gates, which use the same installed service.
pytestmark = pytest.mark.xdist_group("gates")

PIPELINES = {"GitHub": GitHub, "GitLab": GitLab}
FLEET = str(Path(sys.executable).with_name("fleet"))
"""The installed `fleet`, in place of the command that uv installs from the template's repository."""
REGISTRIES = {"GitHub": "ghcr.io", "GitLab": "registry.gitlab.com"}

# --- every command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(birth: Birth, template: Path, fleet_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The repository of a service of a released template, which `make conventions` needs."""
    folder = tmp_path_factory.mktemp("origin")
    released = Path(shutil.copytree(template, folder / "slipway"))
    git(released, "init", "--quiet", "--initial-branch", "main")
    commit(released)
    git(released, "tag", "v1.0.0")
    service = folder / "billing"
    git(folder, "clone", "--quiet", birth(**VARIANTS["default"]).as_uri(), str(service))
    answers = service / ".copier-answers.yml"
    recorded = {**yaml.safe_load(answers.read_text()), "_src_path": str(released), "_commit": "v1.0.0"}
    answers.write_text(f"{answers.read_text().splitlines()[0]}\n{yaml.safe_dump(recorded)}")
    commit(service)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_CACHE_DIR", str(fleet_cache))
        yield service


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Start")


@pytest.fixture(scope="module")
def deployed(birth: Birth, origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the service as if its newest commit were deployed, and yield its URL."""
    folder = tmp_path_factory.mktemp("deployed")
    with (
        trusted_issuer() as trusted,
        running(birth(**VARIANTS["default"]), folder, SERVICE_VERSION=head(origin), **trusted.settings) as url,
    ):
        yield url


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return stand_ins.machine(tmp_path)


def head(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD").strip()


@pytest.mark.slow
@pytest.mark.parametrize("forge", PIPELINES)
def test_every_command_of_the_pipeline_passes_on_a_fresh_clone(
    origin: Path, deployed: str, machine: Machine, forge: str
) -> None:
    event = Event(
        public=True,
        variables={"STAGING_URL": deployed, "PRODUCTION_URL": deployed},
        secrets={"KUBE_CONFIG": "apiVersion: v1"},
        commit=head(origin),
    )
    settings = installed_fleet_and_one_gate(origin) if forge == "GitLab" else {}
    ran = run_pipeline(PIPELINES[forge](origin, event), origin, machine, **settings)
    # On GitHub an action signs, so only GitLab's job calls cosign.
    signed = ["cosign sign", "cosign attest", "cosign attest"] if forge == "GitLab" else []
    before = ["published", "check", "conventions", "audit"]
    assert sorted(ran[:4]) == sorted(before)
    assert ran[4:] == ["publish", *(["sign"] if signed else []), "staging", "production"]
    called = [" ".join(call[:2]) for call in machine.calls() if call[0] in ("docker", "cosign")]
    assert called == ["docker buildx", "docker build", "docker run", "docker push", "docker inspect", *signed]
    assert set(machine.images()) == {f"{REGISTRIES[forge]}/acme/billing@{DIGEST}"}


@pytest.mark.slow
@pytest.mark.parametrize("forge", PIPELINES)
def test_a_pull_request_builds_the_image_from_layers_that_main_has_left(
    render: Render, machine: Machine, forge: str
) -> None:
    service = render(**VARIANTS["default"])
    job = jobs(forge, service, pull_request=True)["build-image"]
    run_job(job, service, machine)
    (build,) = machine.calls()
    kept = f"type=registry,ref={REGISTRIES[forge]}/acme/billing:layers"
    assert [word for word in build if "cache" in word] == [f"--cache-from={kept}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forge", "secrets"),
    [
        ("GitHub", {"NETRC": "machine 127.0.0.1 login ana password s3cret"}),
        # The sign-in at a package index, without a newline at the end, and after it GitLab's own token.
        ("GitLab", {"NETRC": "../index", "CI_SERVER_HOST": "127.0.0.1", "CI_JOB_TOKEN": "t0ken"}),
    ],
)
def test_a_private_template_is_read_with_the_account_of_a_member(
    origin: Path, machine: Machine, tmp_path: Path, forge: str, secrets: dict[str, str]
) -> None:
    (tmp_path / "index").write_text("machine index.example.com login ana password s3cret")
    members = ["ana:s3cret", "gitlab-ci-token:t0ken"]
    with private_git.serving(origin.parent / "slipway", tmp_path, members) as address:
        service = tmp_path / "billing"
        git(tmp_path, "clone", "--quiet", str(origin), str(service))
        answers = service / ".copier-answers.yml"
        answers.write_text(re.sub(r"(?m)^_src_path: .*", f"_src_path: {address}", answers.read_text()))
        commit(service)
        with pytest.raises(AssertionError, match="could not read Username"):
            run_job(jobs(forge, service, secrets={"CI_JOB_TOKEN": ""})["conventions"], service, machine)
        conventions = jobs(forge, service, secrets=secrets)["conventions"]
        *sign_in, check = conventions.commands
        # The update writes the new address into the links of MANUAL.md.
        author = {"EMAIL": "ana@example.com", "GIT_AUTHOR_NAME": "Ana", "GIT_COMMITTER_NAME": "Ana"}
        update = Command("make update ARGS=--no-finish", check.environment | author)
        # On GitHub uv installs `fleet` from the private template. Both, uv and `fleet`, read the template through git.
        installed = {"FLEET": FLEET, "FLEET_TEMPLATE": address} if forge == "GitLab" else {}
        run_job(replace(conventions, commands=[*sign_in, update]), service, machine, **installed)
        run_job(conventions, service, machine, **installed)


def installed_fleet_and_one_gate(origin: Path) -> dict[str, str]:
    """Shorten the run on the second forge: no installation of fleet, and only the gate that depends on a variable."""
    return {"FLEET": FLEET, "FLEET_TEMPLATE": str(origin.parent / "slipway"), "MAKEFLAGS": "GATES=compatible"}


def run_pipeline(pipeline: GitHub | GitLab, service: Path, machine: Machine, **environment: str) -> list[str]:
    """Run each job in a clone of its own, with the files of earlier jobs. Fails at the first command that fails."""
    ran: list[str] = []
    kept: dict[str, bytes] = {}
    for job in pipeline.jobs():
        clone = machine.folder / "jobs" / job.name
        git(service, "clone", "--quiet", service.as_uri(), str(clone))
        for path, target in job.takes.items():
            (clone / target).parent.mkdir(parents=True, exist_ok=True)
            (clone / target).write_bytes(kept[path])
        outputs = run_job(job, clone, machine, **environment)
        if METADATA in job.keeps:
            (clone / METADATA).write_text('{"predicate": {"buildDefinition": {}, "runDetails": {}}}')
        kept |= {path: (clone / path).read_bytes() for path in job.keeps}
        pipeline.ended(job.name, job, outputs)
        ran.append(job.name)
    return ran


def run_job(job: Job, clone: Path, machine: Machine, **more: str) -> dict[str, dict[str, str]]:
    """Run the steps of a job. Returns their outputs, with the environment variables of later jobs under `variables`."""
    outputs: dict[str, dict[str, str]] = {}
    outputs_file = machine.folder / "output"
    # This machine cannot reach the database of vulnerabilities, which would also decide whether this test passes.
    with osv.serving("nothing-that-anybody-ships") as database:
        for command in job.commands:
            outputs_file.write_text("")
            environment = command.environment | {"GITHUB_OUTPUT": str(outputs_file)} | more
            if command.text == "make audit":
                environment["ARGS"] = f"--service-url {database.url}"
            done = machine.run(command.text, clone, **environment)
            assert done.returncode == 0, f"{job.name}: {command.text}\n{done.stdout}\n{done.stderr}"
            if command.text == "make check":
                assert "All gates passed." in done.stdout
                assert git(clone, "status", "--porcelain") == ""
            outputs[command.step] = variables(outputs_file)
    if job.variables:
        outputs["variables"] = variables(clone / job.variables)
    return outputs


def variables(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


# --- the conditions of each job ---------------------------------------------------------------------------------------

CLUSTER = {"STAGING_URL": "https://staging.example.com", "PRODUCTION_URL": "https://example.com"}


def jobs(forge: str, service: Path, **event: Any) -> dict[str, Job]:
    pipeline = PIPELINES[forge](service, Event(**event))
    found = {}
    for job in pipeline.jobs():
        pipeline.ended(job.name, job, {"push": {"DIGEST": DIGEST}, "variables": {"DIGEST": DIGEST}})
        found[job.name] = job
    return found


@pytest.mark.parametrize("forge", PIPELINES)
def test_a_pull_request_publishes_and_deploys_nothing(render: Render, forge: str) -> None:
    found = jobs(forge, render(**VARIANTS["default"]), pull_request=True, public=True, variables=CLUSTER)
    assert {"check", "audit", "build-image"} <= found.keys()
    assert found.keys().isdisjoint({"publish", "sign", "staging", "production", "not-deployed"})


@pytest.mark.parametrize("forge", PIPELINES)
def test_a_merge_queue_gets_the_jobs_of_a_pull_request_and_compares_with_the_preceding_commit(
    render: Render, forge: str
) -> None:
    service, base = render(**VARIANTS["default"]), "b" * 40
    assert PIPELINES[forge](service, Event(queue=True)).starts()
    queued = jobs(forge, service, queue=True, base=base, variables=CLUSTER)
    assert queued.keys() == jobs(forge, service, pull_request=True, variables=CLUSTER).keys()
    for name in ("check", "conventions"):
        assert {one.environment["BASE"] for one in queued[name].commands if one.text.startswith("make")} == {base}


@pytest.mark.slow
@pytest.mark.parametrize("forge", PIPELINES)
@pytest.mark.parametrize(
    ("published", "base"),
    [(["first"], "first"), (["first", "second"], "second"), (["first", "third"], "first"), ([], "HEAD")],
    ids=["after a push that failed", "after a push that passed", "run again", "for the first time"],
)
def test_a_push_is_compared_with_the_previously_published_commit(
    render: Render, machine: Machine, tmp_path: Path, forge: str, published: list[str], base: str
) -> None:
    service = Path(shutil.copytree(render(**VARIANTS["default"]), tmp_path / "billing"))
    git(service, "init", "--quiet", "--initial-branch", "main")
    for name in ("first", "second", "third"):
        (service / "note.txt").write_text(name)
        commit(service)
        git(service, "tag", name)
    there = {f"billing:{git(service, 'rev-parse', name).strip()}": (0, "") for name in published}
    machine.answers = {**there, "imagetools inspect": (1, "ERROR: manifest unknown"), **machine.answers}

    pipeline = PIPELINES[forge](service, Event(commit=head(service)))
    compared = {}
    for job in pipeline.jobs():
        if job.name == "published":
            pipeline.ended(job.name, job, run_job(job, service, machine))
        elif job.name in ("check", "conventions"):
            compared[job.name] = {one.environment["BASE"] for one in job.commands if one.text.startswith("make")}
    expected = {base if base == "HEAD" else git(service, "rev-parse", base).strip()}
    assert compared == {"check": expected, "conventions": expected}


@pytest.mark.slow
@pytest.mark.parametrize("forge", PIPELINES)
def test_a_registry_that_does_not_answer_stops_the_push(render: Render, machine: Machine, forge: str) -> None:
    service = Path(shutil.copytree(render(**VARIANTS["default"]), machine.folder / "billing"))
    git(service, "init", "--quiet", "--initial-branch", "main")
    for name in ("first", "second"):
        (service / "note.txt").write_text(name)
        commit(service)
    machine.answers = {"imagetools inspect": (1, "ERROR: tls: failed to verify: signed by unknown authority")}
    with pytest.raises(AssertionError, match="signed by unknown authority"):
        run_job(jobs(forge, service)["published"], service, machine)


def test_a_job_checks_out_as_far_back_as_its_base_may_be(render: Render) -> None:
    service = render(**VARIANTS["default"])
    depths = [
        step["with"]["fetch-depth"]
        for job in written("GitHub", service).values()
        for step in job["steps"]
        if isinstance(step.get("with", {}).get("fetch-depth"), str)
    ]
    assert len(depths) == 2
    for event, depth in ((Event(queue=True), "0"), (Event(pull_request=True), "2"), (Event(), "0")):
        assert {GitHub(service, event).evaluate(one) for one in depths} == {depth}


@pytest.mark.parametrize("forge", PIPELINES)
def test_without_a_cluster_a_newborn_says_so_and_deploys_nothing(render: Render, forge: str) -> None:
    found = jobs(forge, render(**VARIANTS["default"]))
    assert {"check", "audit", "publish", "not-deployed"} <= found.keys()
    assert found.keys().isdisjoint({"sign", "staging", "production", "build-image"})
    (says,) = found["not-deployed"].commands
    assert "docs/runbook.md" in subprocess.check_output(["bash", "-c", says.text], text=True)


@pytest.mark.parametrize("forge", PIPELINES)
def test_with_a_cluster_every_step_waits_for_the_steps_before(render: Render, forge: str) -> None:
    token = {"SMOKE_TOKEN": "a.b.c"}
    found = jobs(forge, render(**VARIANTS["default"]), public=True, variables=CLUSTER, secrets=token)

    def before(name: str) -> set[str]:
        return {name} | {other for need in found[name].needs if need in found for other in before(need)}

    assert "not-deployed" not in found
    assert {"check", "conventions", "audit"} <= before("publish")
    assert before("publish") < before("staging") < before("production")
    for name in ("staging", "production"):
        (deploy, smoke) = found[name].commands
        assert (deploy.text, smoke.text) == (f"make deploy OVERLAY={name}", "make smoke")
        assert deploy.environment["DIGEST"] == DIGEST
        assert smoke.environment["URL"] == CLUSTER[f"{name.upper()}_URL"]
        assert smoke.environment["SMOKE_TOKEN"] == "a.b.c"


@pytest.mark.parametrize("forge", PIPELINES)
def test_staging_alone_can_be_set_up(render: Render, forge: str) -> None:
    found = jobs(forge, render(**VARIANTS["default"]), variables={"STAGING_URL": "https://staging.example.com"})
    assert "staging" in found
    assert found.keys().isdisjoint({"production", "not-deployed"})


def test_somebody_lets_production_go_on_both_forges(render: Render) -> None:
    service = render(**VARIANTS["default"])
    # On GitHub a reviewer of the environment approves, and on GitLab a person starts the job.
    github = yaml.safe_load((service / ".github/workflows/ci.yaml").read_text())["jobs"]["production"]
    assert github["environment"]["name"] == "production"
    assert jobs("GitLab", service, variables=CLUSTER)["production"].manual
    assert not jobs("GitLab", service, variables=CLUSTER)["staging"].manual


def test_a_cluster_s_credentials_are_in_the_environment_of_no_other_command(render: Render) -> None:
    found = jobs("GitHub", render(**VARIANTS["default"]), variables=CLUSTER, secrets={"KUBE_CONFIG": "secret"})
    seeing = [one.text for job in found.values() for one in job.commands if "secret" in one.environment.values()]
    assert seeing == ["make deploy OVERLAY=staging", "make deploy OVERLAY=production"]


# --- rules for both files ---------------------------------------------------------------------------------------------


def workflow(render: Render) -> dict[str, Any]:
    return yaml.safe_load((render(**VARIANTS["default"]) / GITHUB).read_text())


def written(forge: str, service: Path) -> dict[str, dict[str, Any]]:
    """Return every job, including skipped jobs."""
    if forge == "GitHub":
        return yaml.safe_load((service / GITHUB).read_text())["jobs"]
    return GitLab(service, Event()).jobs_by_name


def commands(forge: str, service: Path) -> dict[str, list[str]]:
    """Return the commands of each job, without the sign-in."""
    return {
        name: job["script"]
        if forge == "GitLab"
        else [step["run"] for step in job["steps"] if "run" in step and "LOGIN" not in step.get("env", {})]
        for name, job in written(forge, service).items()
    }


@pytest.mark.parametrize("forge", PIPELINES)
def test_a_pipeline_only_calls_make(render: Render, forge: str) -> None:
    service = render(**VARIANTS["default"])
    targets = set(re.findall(r"^([a-z-]+):", (service / "Makefile").read_text(), re.MULTILINE))
    found = commands(forge, service)
    (notice,) = found.pop("not-deployed")
    assert notice.startswith("echo ")
    called = [re.fullmatch(r"make ([a-z-]+)( [A-Z]+=\S+)?", line) for lines in found.values() for line in lines]
    assert all(called), found
    assert {one[1] for one in called if one} <= targets


def test_both_forges_call_the_same(render: Render) -> None:
    service = render(**VARIANTS["default"])
    github, gitlab = (
        {
            name: [line.partition(" OUTPUT=")[0] for line in lines]
            for name, lines in commands(forge, service).items()
            if name != "not-deployed"
        }
        for forge in PIPELINES
    )
    assert gitlab.pop("sign") == ["make sign"]  # on GitHub an action signs
    assert github == gitlab


@pytest.mark.parametrize("forge", PIPELINES)
def test_no_job_runs_for_ever(render: Render, forge: str) -> None:
    for name, job in written(forge, render(**VARIANTS["default"])).items():
        assert job.get("timeout-minutes") or job.get("timeout"), name


@pytest.mark.parametrize("forge", PIPELINES)
def test_a_lock_that_is_not_committed_fails(render: Render, forge: str) -> None:
    found = jobs(forge, render(**VARIANTS["default"]), pull_request=True)
    assert [one.environment["UV_LOCKED"] for name in ("check", "audit") for one in found[name].commands] == ["1"] * 3


@pytest.mark.parametrize("forge", PIPELINES)
def test_deployments_run_one_at_a_time_and_end_by_themselves(render: Render, forge: str) -> None:
    found = written(forge, render(**VARIANTS["default"]))
    for name in ("staging", "production"):
        if forge == "GitHub":
            assert found[name]["concurrency"] == {"group": name, "cancel-in-progress": False}
        else:
            assert (found[name]["resource_group"], found[name]["interruptible"]) == (name, False)


def test_a_job_has_only_the_permissions_that_its_steps_need(render: Render) -> None:
    found = workflow(render)
    reading = {"contents": "read"}
    assert found["permissions"] == {}
    assert {name: job["permissions"] for name, job in found["jobs"].items()} == {
        "published": {**reading, "packages": "read"},
        "check": reading,
        "conventions": reading,
        "audit": reading,
        "build-image": {**reading, "packages": "read"},
        "publish": {**reading, "packages": "write", "id-token": "write", "attestations": "write"},
        "not-deployed": {},
        "staging": reading,
        "production": reading,
    }


def test_every_action_is_pinned_to_a_commit_with_its_version_in_a_comment(render: Render) -> None:
    lines = re.findall(r"uses: (.*)", (render(**VARIANTS["default"]) / GITHUB).read_text())
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert len(set(lines)) == len({line.partition("@")[0] for line in lines}), "one version of each"


def test_the_image_that_is_attested_is_the_image_that_was_pushed(render: Render) -> None:
    steps = workflow(render)["jobs"]["publish"]["steps"]
    attested = [step["with"] for step in steps if step.get("uses", "").startswith("actions/attest@")]
    assert {(one["subject-name"], one["subject-digest"]) for one in attested} == {
        ("${{ env.REPOSITORY }}", "${{ steps.push.outputs.DIGEST }}")
    }
    assert [one.get("sbom-path") for one in attested] == [None, "build/sbom.json"]
