"""Names of cases, columns and files come from strangers: in pages, figures, paths and shell lines they are text."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import jupytext
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt
from papermill.translators import PythonTranslator
from typer.testing import CliRunner

from mmlib import __main__ as command_line
from mmlib.analysis.results import Results
from mmlib.data import avmnist
from mmlib.data.brats import BratsFolder
from mmlib.data.cases import Case
from mmlib.data.filenames import LONGEST, file_name, for_spreadsheets
from mmlib.data.nifti import write_segmentation
from mmlib.data.splits import Split, read_split, write_split
from mmlib.data.table import TableCases
from mmlib.figures.explorer import explorer, pack
from mmlib.figures.overlays import Overlay, overlay_panel, portrait
from mmlib.figures.page import Page
from mmlib.figures.style import STYLE, as_text, new_figure, show, styled, text_table
from mmlib.figures.verdicts import ledger_table
from mmlib.records import open_run, read_scores
from mmlib.studies import patients
from mmlib.studies.exploring import look_at

ROOT = Path(__file__).parents[1]
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "$(touch x)",
    "`touch x`",
    "a; touch x",
    "../../x",
    "/etc/x",
    "..",
    "-rf",
    ".hidden",
    "=cmd()",
    "$\\frac{$",
    "a_b^c$d$",
    "**bold** [x](javascript:alert(1))",
    "{{ x }} {x} %s",
    "a,b\nc",
    'Müller, Jörg\'s "scan"',
    "# no heading",
    "NA",
    "null",
]


class Shown(HTMLParser):
    """What a browser makes of a page: its elements, their attributes and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(html: str, name: str) -> None:
    """A page shows the name letter by letter, and nothing in it became an element, a link or a handler."""
    page = Shown(html)
    assert name in page.text, (name, page.text)
    assert not {"img", "script", "b", "a"} & set(page.tags), page.tags
    assert not [one for one in page.attributes if one.startswith("on")]


def case(name: str) -> Case:
    image = np.zeros((8, 9, 6), np.float32)
    image[1:-1, 1:-1, 1:-1] = np.random.default_rng(0).uniform(50, 150, (6, 7, 4))
    labels = np.zeros(image.shape, np.int16)
    labels[3:5, 3:5, 2:4] = 4
    return Case(name, {"t1": image, "flair": image + 1 * (image > 0)}, np.eye(4), labels)


# -------------------------------------------------------------------------------------------------------------- pages
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_cells_columns_index_and_caption_of_a_table(name: str) -> None:
    frame = pd.DataFrame({"case": [name], "dice": [0.5]})
    harmless(Page("quick").table(frame, "c", index=False).to_html(), name)
    harmless(Page("quick").table(frame.set_index("case"), "c").to_html(), name)
    harmless(Page("quick").table(frame.set_axis(["case", name], axis=1).drop(columns="case"), "c").to_html(), name)
    harmless(Page("quick").table(frame[["dice"]], name).to_html(), name)
    harmless(text_table(frame).to_html(), name)
    harmless(text_table(frame.rename(columns={"dice": name})[[name]]).to_html(), name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_a_plain_table_of_a_notebook(name: str) -> None:
    shown = Shown(pd.DataFrame({"used": ["t1"]}, index=pd.Index([name], name="case"))._repr_html_())
    assert name.replace("\n", "\\n") in shown.text
    assert not {"img", "script", "b", "a"} & set(shown.tags)


def test_a_name_is_text_in_every_cell_of_a_ledger() -> None:
    rows = pd.DataFrame({"claim": [HOSTILE[0]], "on stand-in data": [f"{HOSTILE[0]}\n{HOSTILE[1]}"]})
    page = Shown(ledger_table(rows, {"claim": 5}))
    assert page.text.count(HOSTILE[0]) == 2 and HOSTILE[1] in page.text
    assert not {"img", "script"} & set(page.tags)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_a_sentence(name: str) -> None:
    one_line = " ".join(name.split())
    markdown = Page("book").say(f"Best is {as_text(one_line)}.").data
    assert not re.search(r"[$`*_<>\[\](){}]", markdown)  # nor maths, which readers of Markdown add to it
    harmless(MarkdownIt("commonmark").render(markdown), one_line)
    harmless(f"<p>{as_text(one_line)}</p>", one_line)


def test_letters_of_every_alphabet_stay_as_they_are() -> None:
    assert as_text("Müller 12 Ω") == "Müller 12 Ω"


def test_patients_are_named_as_text() -> None:
    scores = pd.DataFrame({"case": HOSTILE[:2], "arm": "a", "available": "t1", "value": 1.0, "seed": 0})
    said = patients.coverage(patients.Study(Results(pd.DataFrame(), scores), scores), "full")
    html = MarkdownIt("commonmark").render(said)
    assert not {"img", "script"} & set(Shown(html).tags)
    assert HOSTILE[0] in Shown(html).text


@pytest.mark.parametrize("name", HOSTILE[:4])
def test_a_name_is_text_in_the_viewer_and_in_a_figure_on_a_page(name: str) -> None:
    packed = pack([look_at(case(name))], {}, 0, own=True)
    page = Shown(explorer(packed, ROOT / "book" / "_components", name).html)
    assert page.tags == ["style", "figure", "script", "noscript", "p", "figcaption", "script"]
    assert {one for one in page.attributes if one.startswith("on")} == set()
    figure, _ = new_figure(1, 1)
    page = Shown(show(figure, alt=name, caption=name).html)
    assert page.text == name and page.tags == ["figure", "img", "figcaption"]
    assert {one for one in page.attributes if one.startswith("on")} == set()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_no_maths_in_a_figure(name: str) -> None:
    one = case(name)
    predicted = np.zeros((3, *one.labels.shape), bool)
    figure = overlay_panel([Overlay(one, ("t1",), predicted, f"worst, {name}")])
    shown = show(figure, alt="a").html  # a broken formula would stop here
    assert shown.startswith("<figure")
    (title,) = [text for text in figure.findobj(mpl.text.Text) if text.get_text() == f"worst, {name}"]
    assert not title.get_parse_math()
    show(portrait(one), alt="a")


@pytest.mark.parametrize("most, label", [(1000, "100"), (5, "2")], ids=["decades", "within one"])
def test_labels_of_a_logarithmic_axis_are_numbers(most: int, label: str) -> None:
    figure, axes = new_figure(3, 3)
    axes[0, 0].plot([1, most], [1, most])
    axes[0, 0].set(xscale="log", yscale="log")
    show(figure, alt="a")
    for ticks in (axes[0, 0].get_xticklabels(which="both"), axes[0, 0].get_yticklabels(which="both")):
        texts = {one.get_text() for one in ticks}
        assert label in texts and all(re.fullmatch(r"[0-9.e+-]*", text) for text in texts), texts


def test_labels_of_ticks_and_legends_are_no_maths() -> None:
    @styled
    def drawn() -> mpl.figure.Figure:
        figure, axes = new_figure(2, 2)
        axes[0, 0].plot([1, 2], [1, 2], label="$\\frac{$")
        axes[0, 0].set_xticks([1, 2], ["$\\frac{$", "$_$"])
        figure.legend()
        return figure

    show(drawn(), alt="a")
    assert STYLE["text.parse_math"] is False


# -------------------------------------------------------------------------------------------------- paths and files
@pytest.mark.parametrize("name", HOSTILE)
def test_a_segmentation_stays_in_its_folder_whatever_its_case_is_called(tmp_path: Path, name: str) -> None:
    target = tmp_path / "a" / "b" / "output"
    labels = np.zeros((8, 9, 6), np.uint8)
    path = write_segmentation(target / f"{file_name(name)}_seg.nii.gz", labels, case(name))
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
    assert path.parent == target and path.resolve().parent == target.resolve()
    assert re.match(r"[\w%]", path.name) and not re.search(r"[$`'\"<>|;&*?\\\n{}]", path.name)


def test_names_of_files_stay_apart_and_ordinary_ones_as_they_are() -> None:
    assert len({file_name(name) for name in [*HOSTILE, "%2E%2E", "%2e%2e", "..%2F..%2Fx"]}) == len(HOSTILE) + 3
    for name in ("BraTS2021_00001", "phantom-0120", "Müller 12", "a+b=c"):
        assert file_name(name) == name
    assert file_name("../../x") == "%2E.%2F..%2Fx"
    long = ["ä" * 300, "ä" * 299 + "b"]
    assert len({file_name(name) for name in long}) == 2
    assert all(len(file_name(name).encode()) <= LONGEST for name in long)
    with pytest.raises(ValueError, match="empty name"):
        file_name("")


def test_a_name_that_is_not_utf_8_makes_a_file_name() -> None:
    assert file_name(os.fsdecode(b"M\xfcller")) == "M%FCller"


def test_every_place_that_makes_a_file_of_a_case_uses_the_safe_name() -> None:
    text = (ROOT / "mmlib" / "prediction.py").read_text()
    assert re.findall(r'f"\{(.+?)\}_.+\.nii\.gz"', text) == ["file_name(name)"] * 2


def test_a_spreadsheet_computes_no_name() -> None:
    table = pd.DataFrame({"=1": ["@x", -3.5], "b": ["plain", "+1"]}, index=["=cmd()", "-x"])
    safe = for_spreadsheets(table)
    assert list(safe.index) == ["'=cmd()", "'-x"] and list(safe.columns) == ["'=1", "b"]
    assert safe["'=1"].tolist() == ["'@x", -3.5] and safe["b"].tolist() == ["plain", "'+1"]


def test_names_come_back_from_splits_tables_and_records_as_they_were(tmp_path: Path) -> None:
    names = [name for name in HOSTILE if "\n" not in name]
    split = Split(
        train=tuple(names[:-2]), valid=(names[-2],), test=(names[-1],), subjects={name: name for name in names}
    )
    write_split(split, tmp_path / "split.csv")
    assert read_split(tmp_path / "split.csv").train == split.train
    run = open_run(tmp_path, "smoke", "e", "r", {"method": "m", "variant": "v", "seed": 0})
    scores = pd.DataFrame({"case": HOSTILE, "available": "t1", "target": "wt", "metric": "dice", "value": 1.0})
    facts = dict.fromkeys(("device", "precision", "data_fingerprint", "split_hash", "availability_sampler"), "x")
    run.save(
        pd.DataFrame(), scores, threads=1, seconds={}, parameter_count=0, stand_in=True, fingerprint="f", **facts,
        exposure={"train": dict.fromkeys(HOSTILE, ["t1"])},
    )  # fmt: skip
    assert read_scores(run.folder)["case"].tolist() == HOSTILE


@pytest.mark.parametrize(
    "name", ["with space", "quote's", 'double"quote', "Jörg Müller", "$(touch x)", "a;b", "{x}", "%s"]
)
def test_folders_of_any_name_are_read(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    folder = root / name
    write_segmentation(folder / f"{name}_t1.nii.gz", np.ones((8, 9, 6), np.uint8), case(name))
    assert list(BratsFolder(root)) == [name]
    (root / "cases.csv").write_text('case,t1\n=cmd(),"' + f"{name}/{name}_t1.nii.gz".replace('"', '""') + '"\n')
    assert TableCases(root / "cases.csv")["=cmd()"].images["t1"].shape == (8, 9, 6)
    assert not list(Path.cwd().glob("x"))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "/etc"])
def test_a_record_never_leaves_the_folder_of_results(tmp_path: Path, name: str) -> None:
    for place in (("p", "e", name), ("p", name, "r"), (name, "e", "r")):
        with pytest.raises(ValueError, match="become folders"):
            open_run(tmp_path / "results", *place, {})
    assert not (tmp_path / "results").exists()


def test_an_archive_writes_into_its_own_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = tmp_path / "fsdd.zip", tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../0_theo_1.wav", b"x")
        opened.writestr("/tmp/0_theo_2.wav", b"x")
    monkeypatch.setattr(avmnist, "MNIST_MD5", {})
    monkeypatch.setattr(avmnist.pooch, "retrieve", lambda *_, **__: str(archive))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="the recordings have the hash"):
        avmnist._download(root)
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------------ shells and notebooks
@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_is_one_word_in_a_line_to_be_copied(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(command_line.ms, "fetch", lambda folder: [])
    given = CliRunner().invoke(command_line.app, ["fetch", "open-ms", "--", name])
    line = given.output.partition("Next: ")[2]
    assert shlex.split(line) == ["make", "book", "PROFILE=full", f"MS={Path(name)}"]


@pytest.mark.parametrize("name", HOSTILE)
def test_papermill_hands_a_parameter_over_as_text(name: str) -> None:
    (assigned,) = ast.parse(PythonTranslator.codify({"data": name}, "Parameters")).body
    assert isinstance(assigned, ast.Assign) and ast.literal_eval(assigned.value) == name


# ------------------------------------------------------------------------------------------------------------- pickles
def _calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in the package, the pipeline and the notebooks: file, dotted name, node."""
    trees = {path: ast.parse(path.read_text()) for top in ("mmlib", "pipeline") for path in (ROOT / top).rglob("*.py")}
    for path in (ROOT / "notebooks").glob("*.md"):
        cells = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
        trees[path] = ast.parse("\n".join(line for cell in cells for line in cell.splitlines() if line[:1] not in "%!"))
    return [
        (path.name, ast.unparse(node.func), node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


SAFE_LOADER = "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)"


def test_nothing_is_unpickled_or_run_as_code() -> None:
    calls = _calls()
    given = {id(node): {one.arg: ast.unparse(one.value) for one in node.keywords} for _, _, node in calls}
    loads = [(file, given[id(node)]) for file, name, node in calls if name == "torch.load"]
    assert len(loads) >= 2 and all(options.get("weights_only") == "True" for _, options in loads), loads
    arrays = [(file, given[id(node)]) for file, name, node in calls if name in ("np.load", "numpy.load")]
    assert arrays and all(options.get("allow_pickle", "False") == "False" for _, options in arrays), arrays
    refused = re.compile(
        r"(pickle|joblib|dill|shelve|marshal)\.\w*(load|open)\w*|pd\.read_pickle|yaml\.(unsafe_|full_)?load|eval|exec|"
        r"os\.system|os\.popen|.*\.(extractall|unpack_archive)|shutil\.unpack_archive"
    )
    safe = {which for which, options in given.items() if options.get("Loader") == SAFE_LOADER}
    ran = [(file, name) for file, name, node in calls if refused.fullmatch(name) and id(node) not in safe]
    assert ran == [("verify.py", "exec")], "the cells of the project's own notebooks, and nothing else"
    assert [file for file, _, node in calls if given[id(node)].get("shell") == "True"] == []


class Calls:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_and_an_array_that_would_run_code_are_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": Calls(mark)}, tmp_path / "fit.checkpoint.pt")
    np.savez(tmp_path / "features.npz", a=np.array([Calls(mark)], dtype=object))
    with pytest.raises(Exception, match="[Ww]eights"):
        torch.load(tmp_path / "fit.checkpoint.pt", map_location="cpu", weights_only=True)
    with np.load(tmp_path / "features.npz") as stored, pytest.raises(ValueError, match="allow_pickle"):
        stored["a"]
    assert not mark.exists()


# ---------------------------------------------------------------------------------------------------------- JupyterLab
def _lab() -> list[str]:
    (line,) = re.findall(r"^lab:.*\n\t(.*)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    return shlex.split(line)


def test_jupyterlab_listens_on_loopback_and_keeps_its_token() -> None:
    options = _lab()[2:]
    assert "--ServerApp.ip=127.0.0.1" in options
    weaker = r"token|password|allow|xsrf|0\.0\.0\.0|::|trust"
    assert [one for one in options if re.search(weaker, one, flags=re.IGNORECASE)] == []


def test_a_server_with_the_options_of_make_lab_asks_for_the_token(tmp_path: Path) -> None:
    pytest.importorskip("jupyter_server", reason="jupyterlab is installed by `make lab` alone")
    code = (
        "import sys; from jupyter_server.serverapp import ServerApp; app = ServerApp();"
        "app.initialize(['--no-browser', *sys.argv[1:]], new_httpserver=False);"
        "print(app.ip, bool(app.identity_provider.token), app.identity_provider.auth_enabled)"
    )
    options = [one for one in _lab()[2:] if not one.startswith("--LabApp")]
    done = subprocess.run([sys.executable, "-c", code, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["127.0.0.1", "True", "True"], done.stderr
