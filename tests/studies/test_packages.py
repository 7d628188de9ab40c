"""The list of packages is what is installed; a licence is what the package says of itself."""

from email.message import Message
from importlib import metadata
from types import SimpleNamespace

import pandas as pd
import pytest

from mmlib.studies.packages import LONGEST, UNSTATED, counted, dependencies, licence


def package(**fields):
    told = Message()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            told[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=told)


def test_an_expression_goes_before_classifiers_and_these_before_the_field():
    mit, bsd = "License :: OSI Approved :: MIT License", "License :: OSI Approved :: BSD License"
    assert licence(package(License_Expression="Apache-2.0", Classifier=[mit], License="x")) == "Apache-2.0"
    assert licence(package(Classifier=[mit, "Topic :: Text", bsd], License="x")) == "MIT License; BSD License"
    assert licence(package(Classifier=["License :: OSI Approved"], License="Zlib")) == "Zlib"


def test_the_text_of_a_licence_gives_its_first_line_and_no_licence_is_said():
    assert licence(package(License="MIT License\n\nPermission is hereby granted")) == "MIT License"
    assert len(licence(package(License="x" * 500))) == LONGEST
    for told in ({}, {"License": "UNKNOWN"}, {"License": " \n"}):
        assert licence(package(**told)) == UNSTATED


def test_what_is_listed_is_installed_and_what_the_project_names_is_listed():
    table = dependencies().set_index("package")
    assert all(metadata.version(name) == row.version for name, row in table.iterrows())
    assert table.index.is_unique and table["licence"].ne("").all()
    assert table.loc["torch", "wanted by"] == "library" and table.loc["snakemake", "wanted by"] == "book"
    assert table.loc["sympy", "wanted by"] == "", "torch asks for it, the project does not"
    assert "mmlib" not in table.index


def test_a_project_that_is_not_installed_is_an_error():
    with pytest.raises(metadata.PackageNotFoundError):
        dependencies("no-such-project")


def test_licences_are_counted_most_first():
    made = counted(pd.DataFrame({"licence": ["b", "a", "c", "a", "b", "a"]}))
    assert made.to_numpy().tolist() == [["a", 3], ["b", 2], ["c", 1]]
