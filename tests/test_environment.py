"""One environment told three times: ranges in pyproject.toml, versions in requirements.lock, environment.yml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def entries(name: str) -> list[str]:
    """The entries of a lock, continued lines joined."""
    text = (ROOT / name).read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if line and line[0] not in "#-"]


def locked() -> dict[str, list[Requirement]]:
    """Package -> its lines of the lock; a package may have one line per Python or system."""
    lines = entries("requirements.lock")
    found: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, lines):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version_of(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    assert pin.operator == "==", f"{requirement} is not pinned"
    return pin.version


def asked_for() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(text) for group in groups for text in group]
    return [one for one in found if one.name != PROJECT["name"]]  # an extra may take others in


def test_the_lock_satisfies_every_range_of_the_project() -> None:
    pins = locked()
    for requirement in asked_for():
        for pin in pins[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version_of(pin)), f"{pin} is outside {requirement}"


def test_the_lock_is_for_every_python_that_the_project_allows() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(9, 16) if allowed.contains(f"3.{minor}.0")] == [11, 12, 13]
    for name, pins in locked().items():
        for minor in ("3.11", "3.12", "3.13"):
            here = {"python_version": minor, "python_full_version": f"{minor}.2", "sys_platform": "linux"}
            fitting = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(here)]
            assert len(fitting) <= 1, f"{name} has {len(fitting)} versions for Python {minor}"


def test_what_is_installed_is_what_the_lock_says() -> None:
    for name, pins in locked().items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        versions = [version_of(pin) for pin in pins if pin.marker is None or pin.marker.evaluate()]
        as_locked = not versions or installed.split("+")[0] in versions
        assert as_locked, f"{name} {installed} is installed, the lock has {versions}"


def test_the_lock_with_hashes_has_the_same_versions_and_a_hash_for_each() -> None:
    hashed = entries("requirements-hashed.lock")
    assert [line.partition(" --hash")[0].strip() for line in hashed] == entries("requirements.lock")
    for line in hashed:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line
        assert not re.search(r"--hash=(?!sha256:[0-9a-f]{64}\b)", line), line


def test_what_is_installed_by_hash_is_the_project_and_its_lock_alone() -> None:
    told = subprocess.run(
        ["make", "--dry-run", "setup", "HASHES=1", "VENV=none"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "--no-deps" in told and "--require-hashes -r requirements-hashed.lock" in told
    assert "--no-build-isolation -e ." in told and "uv" not in re.sub(r"venv", "", told)
    built_by = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {canonicalize_name(Requirement(text).name) for text in built_by} <= locked().keys()


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_whose_release_is_named(path: Path) -> None:
    used = [line.split("uses:")[1].strip() for line in path.read_text().splitlines() if "uses:" in line]
    loose = [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)]
    assert used and not loose


def test_one_action_has_one_commit_in_all_workflows() -> None:
    found = {
        (one[1], one[2])
        for path in WORKFLOWS
        for one in re.finditer(r"uses: ([\w-]+/[\w-]+)\S*@([0-9a-f]+ # \S+)", path.read_text())
    }
    assert len(found) == len({name for name, _ in found})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_only_a_job_without_code_of_ours_may_write(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"} and workflow["env"] == {"HASHES": "1"}
    for name, job in workflow["jobs"].items():
        steps = job["steps"]
        if job.get("permissions", {}).keys() - {"contents"}:
            assert set(job["permissions"]) == {"pages", "id-token"}, name
            assert all("run" not in step and "checkout" not in step["uses"] for step in steps), name
        checkouts = [step for step in steps if "actions/checkout" in step.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts), name
        # what a stranger writes (titles, branches) never stands in a shell line
        assert [step["run"] for step in steps if "${{" in step.get("run", "")] == [], name


def test_every_python_of_the_project_is_tested() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]["test"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert job["strategy"]["matrix"]["python"] == [f"3.{n}" for n in range(8, 20) if allowed.contains(f"3.{n}.0")]


def test_the_list_of_dependencies_comes_from_the_lock_with_hashes_by_a_tool_of_one_version() -> None:
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]["sbom"]["steps"]
    (run,) = [step["run"] for step in steps if "run" in step]
    assert re.search(r"pip install --quiet cyclonedx-bom==\d+\.\d+\.\d+\n", run)
    assert "requirements requirements-hashed.lock" in run and "--output-format JSON" in run
    (kept,) = [step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", "")]
    assert f"--output-file {kept}" in run


def test_conda_users_get_the_same_python_and_the_same_versions() -> None:
    (python,) = [entry for entry in CONDA if isinstance(entry, str) and entry.startswith("python")]
    assert python == "python=3.11"
    (through_pip,) = [entry["pip"] for entry in CONDA if isinstance(entry, dict)]
    assert "-c requirements.lock" in through_pip
    (editable,) = [line for line in through_pip if line.startswith("-e")]
    extras = re.fullmatch(r"-e \.\[(.*)\]", editable)
    assert extras and set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    others = [line for line in through_pip if not line.startswith(("-c", "-e", "--"))]
    assert others == [], "versions come from the lock alone"


def test_no_package_sits_beside_pip_in_conda() -> None:
    assert [entry for entry in CONDA if isinstance(entry, str)] == ["python=3.11", "pip"]


def test_this_python_is_allowed() -> None:
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def test_the_version_is_told_once() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == metadata.version("mmlib")
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_repository_is_told_alike() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert config["repository"]["url"] == citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_the_library_alone_evaluates_and_predicts_without_the_packages_of_its_extras(tmp_path) -> None:
    extras = PROJECT["optional-dependencies"]
    blocked = [Requirement(text).name for one in ("audio", "embeddings", "phantoms") for text in extras[one]]
    names = {"umap-learn": "umap", "scikit-image": "skimage"}
    code = f"""
import sys
for name in {[names.get(name, name) for name in blocked]!r}:
    sys.modules[name] = None
import torch
from torch import nn
import mmlib.__main__, mmlib.figures.results, mmlib.official, mmlib.prediction, mmlib.training
from mmlib.tasks.segmentation import evaluate_combinations
from monai.networks.nets import SegResNet
images = torch.randn(2, 8, 8, 8)
case = {{"image": images, "label": images[:1] > 1}}
network = SegResNet(3, init_filters=8, in_channels=2, out_channels=1, blocks_down=(1, 1), blocks_up=(1,))
network.modalities = ("pet", "ct")
table = evaluate_combinations(network, [case], regions=["tumour"], hausdorff=False)
assert list(table["available"]) == ["pet", "ct", "pet+ct"], table
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "mmlib" / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["mmlib"]
