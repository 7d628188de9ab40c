"""The pipeline of the book: what is asked for (profiles), what it depends on (sources), and how it is made (make)."""

from pipeline.checks import check_parameters
from pipeline.frame import case_folder, changed_runs, open_run, stale_because
from pipeline.make import data_folder, make_run, require_runs
from pipeline.profiles import asked_runs, experiments_of, list_runs, phantom_of, profile, project_root, read_manifest
from pipeline.store import read_records
from pipeline.verify import read_verified

__all__ = [
    "asked_runs",
    "case_folder",
    "changed_runs",
    "check_parameters",
    "data_folder",
    "experiments_of",
    "list_runs",
    "make_run",
    "open_run",
    "phantom_of",
    "profile",
    "project_root",
    "read_manifest",
    "read_records",
    "read_verified",
    "require_runs",
    "stale_because",
]
