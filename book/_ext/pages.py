"""What a page offers and says: a chapter leads to its text notebook, and a smoke book says that it is one."""

import functools
import html
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

CHAPTERS = "chapters/"
SAYS = {
    "smoke": "Smoke profile: everything ran, for a few steps only. The numbers on this page are not results.",
}


def announce(app: Sphinx, config: Config) -> None:
    """Put a banner on every page of a book whose numbers are not results."""
    profile = os.environ.get("PROFILE", "")
    if says := SAYS.get(profile.removesuffix("-own")):
        config.html_theme_options["announcement"] = says


def link(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Let the buttons of a chapter lead to its text notebook, and offer it for download beside the executed one."""
    context["script_files"] = [script for script in context["script_files"] if not _is_thebe(script)]
    if not page.startswith(CHAPTERS):
        return
    wrong = f"{context['theme_path_to_docs'].strip('/')}/{page}.ipynb"
    right = f"notebooks/{page.removeprefix(CHAPTERS)}.md"
    for group in context["header_buttons"]:
        buttons = group.get("buttons", [])
        for button in buttons:
            if "url" in button:
                button["url"] = button["url"].replace(wrong, right)
        if group.get("label") == "download-buttons":
            offered = Path(app.outdir) / "_sources" / f"{page}.md"
            offered.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(right), offered)
            source = {
                "type": "link",
                "url": f"{context['pathto']('_sources', 1)}/{page}.md",
                "text": ".md",
                "tooltip": "Download the text notebook",
                "icon": "fas fa-file",
                "label": "download-text-notebook-button",
            }
            buttons.insert(1, source)


def print_origin(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """End a page, on paper alone, with the link to its text at the commit that it was built from, and the date."""
    if "body" not in context or doctree is None:
        return
    text = f"notebooks/{page.removeprefix(CHAPTERS)}.md" if page.startswith(CHAPTERS) else f"book/{page}.md"
    address = app.config.html_theme_options["repository_url"]
    if Path(text).exists():  # pages of the library's parts have none
        address += f"/blob/{_commit() or 'main'}/{text}"
    title = html.escape(f"{app.config.html_title}, {context['last_updated']}. ")
    context["body"] += f'<p class="printed-from">{title}<a href="{address}">{address}</a></p>'


@functools.cache
def _commit() -> str:
    """The commit of the project, or nothing outside git."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def name_roles(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Make items of the list of a bibliography of its entries; docutils gives them a role that ARIA has given up."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def leave_bare(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Show source code without the tree of chapters, which takes longer to draw than all else; the logo leads home."""
    if page.startswith("_modules/"):
        context["sidebars"] = [one for one in context["sidebars"] if one != "sbt-sidebar-nav.html"]


def _is_thebe(script: Any) -> bool:
    """Scripts of sphinx-thebe name a remote address; no page here starts a kernel."""
    body = getattr(script, "attributes", {}).get("body") or ""
    return "THEBE_JS_URL" in body or "sphinx-thebe.js" in str(script.filename)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hooks; the theme's own run at 501 and 502."""
    app.connect("config-inited", announce, priority=900)
    app.connect("html-page-context", leave_bare, priority=400)
    app.connect("html-page-context", link, priority=900)
    app.connect("html-page-context", name_roles)
    app.connect("html-page-context", print_origin, priority=910)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
