"""One environment told three times: ranges in pyproject.toml, versions in requirements.lock, environment.yml."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def locked() -> dict[str, list[Requirement]]:
    """Package -> its lines of the lock; a package may have one line per Python or system."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] not in "#-"]
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
    return [Requirement(text) for group in groups for text in group]


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
