"""What a notebook depends on: the modules of mmlib that it imports, and the files of the book that it reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.profiles import project_root


def _code(path: Path) -> str:
    """The Python of a module, or of the code cells of a text notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        return text
    cells = re.findall(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1\s*$", text, flags=re.MULTILINE | re.DOTALL)
    bodies = [re.sub(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", "", body, flags=re.MULTILINE | re.DOTALL) for _, body in cells]
    return "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", body, flags=re.MULTILINE) for body in bodies)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(_code(path), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(notebook: str | Path, *modules: str) -> list[Path]:
    """The notebook and every file of mmlib that it imports, directly or through another: what its results rest on.

    Args:
        notebook: a text notebook, relative to the project.
        modules: names of modules that it imports at run time, such as the method of a run.

    Returns:
        Paths relative to the project, sorted; without data files.
    """
    found: set[Path] = set()
    waiting = [Path(notebook), *(file for module in modules for file in _files(module))]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _imported(project_root() / path) for file in _files(name)]
    return sorted(found)


def book_files(notebook: str | Path) -> list[Path]:
    """The ledgers, tables and drawings that a notebook reads, written in it as `root / "book" / "claims.yml"`."""
    named = re.findall(r'"book"((?:\s*/\s*"[^"]+")+)', _code(project_root() / notebook))
    return sorted({Path("book", *re.findall(r'"([^"]+)"', parts)) for parts in named})


def _file(module: str) -> Path | None:
    base = Path(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if (project_root() / path).is_file()), None)


def _files(name: str) -> list[Path]:
    """The files that `import name` executes: the module and the packages above it; nothing outside mmlib."""
    parts = name.split(".")
    if parts[0] != "mmlib":
        return []
    return [file for end in range(1, len(parts) + 1) if (file := _file(".".join(parts[:end])))]
