"""What a notebook depends on: the modules of mmlib that it imports, and the files of the book that it reads."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pipeline.profiles import project_root

HEADER = re.compile(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", flags=re.MULTILINE | re.DOTALL)  # of a cell: its tags
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def cells(path: Path) -> list[tuple[bool, str]]:
    """The code cells of a text notebook: whether a cell holds the parameters, and its Python."""
    text = path.read_text(encoding="utf-8")
    cells = re.findall(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1\s*$", text, flags=re.MULTILINE | re.DOTALL)
    found = []
    for _, body in cells:
        header = HEADER.match(body)
        code = re.sub(r"^(\s*)[%!].*$", r"\1pass", HEADER.sub("", body), flags=re.MULTILINE)
        found.append((header is not None and "parameters" in header.group(), code))
    return found


def _code(path: Path) -> str:
    """The Python of a module, or of the code cells of a text notebook but for its parameters."""
    if path.suffix != ".md":
        return path.read_text(encoding="utf-8")
    return "\n".join(code for parameters, code in cells(path) if not parameters)


def parameters_of(notebook: str) -> dict[str, Any]:
    """The names and values of a notebook's parameters cell, which holds plain assignments, with types or without."""
    path = project_root() / "notebooks" / f"{notebook}.md"
    return dict(_assigned(path, path.stat().st_mtime_ns))


@lru_cache
def _assigned(path: Path, modified_ns: int) -> dict[str, Any]:
    (code,) = [code for parameters, code in cells(path) if parameters]
    assigned: dict[str, Any] = {}
    for statement in ast.parse(code).body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            raise ValueError(f"{path}: line {statement.lineno} of the parameters cell is no plain assignment")
        value = ast.literal_eval(statement.value)
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        assigned |= {name.id: value for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return assigned


@cache
def _bare_code(path: Path, modified_ns: int) -> str:
    return hashlib.sha256(repr(_bare(_tree(path, modified_ns))).encode()).hexdigest()


@lru_cache(maxsize=64)  # the files of a training; trees are large
def _tree(path: Path, modified_ns: int) -> ast.Module:
    return ast.parse(_code(path), filename=str(path))


def _bare(node: Any) -> Any:
    """A syntax tree without what cannot change a number: docstrings and annotations; comments are not in it.

    Empty fields are left out as well: versions of Python differ in which of those a node has.
    """
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {}
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            value = value[1:]
        elif name == "annotation" and isinstance(node, ast.AnnAssign):
            value = ast.Constant(None)  # that there is one makes a field of a dataclass
        elif name in ("annotation", "returns"):
            continue
        if value is not None and value != []:
            fields[name] = _bare(value)
    return type(node).__name__, fields


def code_fingerprint(notebook: str, *modules: str) -> str:
    """Hash the code that a run rests on: syntax trees without comments, docstrings and annotations.

    Args:
        notebook: name of the training notebook, without ending; its parameters cell does not count.
        modules: what it imports at run time, such as the method of a run.

    Returns:
        16 hexadecimal digits; the same wherever the project lies.
    """
    root = project_root()
    files = sources(f"notebooks/{notebook}.md", *modules)
    trees = [f"{file.as_posix()} {_bare_code(root / file, (root / file).stat().st_mtime_ns)}" for file in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:16]


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements of a tree; what stands within expressions, which is most of it, is not looked at."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield child
            yield from _statements(child)


@cache
def _imported(path: Path, modified_ns: int) -> list[str]:
    names: list[str] = []
    for node in _statements(_tree(path, modified_ns)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def sources(notebook: str | Path, *modules: str) -> list[Path]:
    """The notebook and every file of mmlib that it imports, directly or through another: what its results rest on.

    Args:
        notebook: a text notebook, relative to the project.
        modules: names of modules that it imports at run time, such as the method of a run.

    Returns:
        Paths relative to the project, sorted; without data files.
    """
    there = _modules()
    found: set[Path] = set()
    known: set[str] = set()
    waiting = [Path(notebook), *(file for module in modules for file in _files(module, there))]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            whole = project_root() / path
            names = set(_imported(whole, whole.stat().st_mtime_ns)) - known
            known |= names
            waiting += [file for name in names for file in _files(name, there)]
    return sorted(found)


def book_files(notebook: str | Path) -> list[Path]:
    """The ledgers, tables and drawings that a notebook reads, written in it as `root / "book" / "claims.yml"`.

    Where it names a folder, such as `root / "book" / "published"`, all files in it.
    """
    root = project_root()
    named = re.findall(r'"book"((?:\s*/\s*"[^"]+")+)', _code(root / notebook))
    paths = {Path("book", *re.findall(r'"([^"]+)"', parts)) for parts in named}
    files = {file.relative_to(root) for path in paths for file in (root / path).glob("*") if file.is_file()}
    return sorted(files | {path for path in paths if not (root / path).is_dir()})


def _modules() -> dict[str, Path]:
    """Every module and package of mmlib that there is now -> its file, relative to the project."""
    found = {}
    for folder, _, names in os.walk(project_root() / "mmlib"):
        package = Path(folder).relative_to(project_root())
        for name in names:
            if name.endswith(".py"):
                parts = package.parts if name == "__init__.py" else (*package.parts, name.removesuffix(".py"))
                found[".".join(parts)] = package / name
    return found


def _files(name: str, there: Mapping[str, Path]) -> list[Path]:
    """The files that `import name` executes: the module and the packages above it; nothing outside mmlib."""
    if not name.startswith("mmlib"):
        return []
    parts = name.split(".")
    return [there[above] for end in range(1, len(parts) + 1) if (above := ".".join(parts[:end])) in there]
