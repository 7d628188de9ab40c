"""Which packages the project stands on and under which licences, as the installed files themselves say."""

from __future__ import annotations

from importlib import metadata

import pandas as pd
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LONGEST = 60  # characters of a licence field that is a name; longer ones hold the text of the licence
UNSTATED = "not stated"


def licence(package: metadata.Distribution) -> str:
    """The licence of an installed package: its SPDX expression, else its classifiers, else its licence field.

    A field that holds the text of the licence gives its first line.
    """
    if expression := _field(package, "License-Expression"):
        return expression
    classifiers = [
        one.split(" :: ")[-1] for one in package.metadata.get_all("Classifier", []) if one.startswith("License :: ")
    ]
    named = [one for one in classifiers if one != "OSI Approved"]
    if named:
        return "; ".join(named)
    first = _field(package, "License").strip().partition("\n")[0].strip()
    return UNSTATED if first in ("", "UNKNOWN") else first[:LONGEST]


def _field(package: metadata.Distribution, name: str) -> str:
    told = package.metadata
    return told[name] if name in told else ""  # noqa: SIM401, what the annotation says has no `get`


def dependencies(project: str = "mmlib") -> pd.DataFrame:
    """Every installed package that a project needs, directly or through another.

    Returns:
        One row per package, by name: package, version, licence, wanted by (`library`, or extras of the project, as
        `book, test`; empty where only another package asks for it), home.

    Raises:
        PackageNotFoundError: if the project is not installed.
    """
    wanted: dict[str, set[str]] = {}
    distribution = metadata.distribution(project)
    extras = distribution.metadata.get_all("Provides-Extra", [])
    waiting: list[tuple[str, str]] = []
    for requirement in map(Requirement, distribution.requires or ()):
        if requirement.name == project:
            continue  # an extra that takes in others
        for extra in ["", *extras]:
            if _holds(requirement, extra) and (not extra or not _holds(requirement, "")):
                wanted.setdefault(canonicalize_name(requirement.name), set()).add(extra or "library")
                waiting += [(requirement.name, one) for one in ("", *requirement.extras)]
    seen: set[tuple[str, str]] = set()
    rows: dict[str, dict[str, str]] = {}
    while waiting:
        name, extra = waiting.pop()
        key = canonicalize_name(name)
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed, or another system
        rows[key] = {
            "package": found.metadata["Name"],
            "version": found.version,
            "licence": licence(found),
            "wanted by": ", ".join(sorted(wanted.get(key, ()))),
            "home": _home(found),
        }
        for requirement in map(Requirement, found.requires or ()):
            if _holds(requirement, extra):
                waiting += [(requirement.name, one) for one in ("", *requirement.extras)]
    return pd.DataFrame([rows[key] for key in sorted(rows)])


def _holds(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _home(package: metadata.Distribution) -> str:
    if home := _field(package, "Home-page"):
        return home
    links = dict(one.split(", ", 1) for one in package.metadata.get_all("Project-URL", []) if ", " in one)
    named = {label.lower(): link for label, link in links.items()}
    return next((named[label] for label in ("homepage", "repository", "source", "source code") if label in named), "")


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """How many packages have each licence, most first.

    Args:
        table: as `dependencies` returns it.
    """
    counts = table["licence"].value_counts(sort=False).rename("packages").rename_axis("licence").reset_index()
    return counts.sort_values(["packages", "licence"], ascending=[False, True], ignore_index=True)
