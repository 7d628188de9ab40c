"""The pipeline of the book: what is asked for (profiles), what it depends on (sources), and how it is made (make)."""

from pipeline.make import data_folder, make_run, require_runs
from pipeline.profiles import STANDARD, list_runs, profile, project_root
from pipeline.sources import sources

__all__ = ["STANDARD", "data_folder", "list_runs", "make_run", "profile", "project_root", "require_runs", "sources"]
