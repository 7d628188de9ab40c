"""The lesion phantom: the counted-out ceiling, images that tell what they show alone, the files."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mmlib.data.derm7pt import MODALITIES, POINTS, TASKS, load
from mmlib.data.phantoms.lesion import model as lesion
from mmlib.data.phantoms.lesion.expected import expected_scores
from mmlib.data.phantoms.lesion.model import SIGNS, Lesion, ceiling, draw, melanoma_ceiling, render, write_derm7pt

ALL = {modality: dict.fromkeys(SIGNS, True) for modality in MODALITIES}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch):
    """A quarter are melanomas; only the veil tells, present in 90 % of them and in 20 % of all others."""
    monkeypatch.setattr(lesion, "PRIOR", np.array([0.15, 0.45, 0.25, 0.1, 0.05]))
    same = {sign: [(1 / len(rows[0]),) * len(rows[0])] * 5 for sign, rows in lesion.GIVEN_DIAGNOSIS.items()}
    same["BWV"] = [(0.8, 0.2), (0.8, 0.2), (0.1, 0.9), (0.8, 0.2), (0.8, 0.2)]
    monkeypatch.setattr(lesion, "GIVEN_DIAGNOSIS", same)
    monkeypatch.setitem(lesion.VISIBILITY["clinic"], "BWV", 0.6)
    lesion._joint.cache_clear()
    yield
    lesion._joint.cache_clear()


def test_the_ceiling_by_hand(tiny) -> None:
    # A veil: 0.75 x 0.2 + 0.25 x 0.9 = 0.375 of all; shown in the photograph: 0.6 of these.
    # Not shown, a veil has the probability 0.375 x 0.4 = 0.15 and no veil 0.625.
    assert ceiling("derm").loc["BWV"].tolist() == pytest.approx([1, 1])
    assert ceiling("clinic").loc["BWV", "accuracy"] == pytest.approx(0.225 + 0.625)
    # Balanced: P(shown | veil) = 0.6 goes to veil; not shown, 0.4 given veil and 1 given none: to none.
    assert ceiling("clinic").loc["BWV", "balanced_accuracy"] == pytest.approx((0.6 + 1) / 2)
    # Melanoma from a veil seen in dermoscopy: 0.9 against 0.2; AUROC of a yes-no sign = (1 + 0.9 - 0.2) / 2.
    assert melanoma_ceiling("derm") == pytest.approx(0.85)
    assert melanoma_ceiling("clinic") == pytest.approx((1 + 0.54 - 0.12) / 2)
    # The diagnosis from dermoscopy: veil -> melanoma (0.225 against at most 0.09), none -> nevus (0.36).
    assert ceiling("derm").loc["DIAG", "accuracy"] == pytest.approx(0.225 + 0.36)
    # Balanced: a veil is likeliest given melanoma (0.9), none given any other (0.8).
    assert ceiling("derm").loc["DIAG", "balanced_accuracy"] == pytest.approx((0.9 + 0.8) / 5)
    # A network that depends on nothing is seen in 30 % of photographs: 1/3 + 0.3 x 2/3 of cases can be named.
    assert ceiling("clinic").loc["PN"].tolist() == pytest.approx([(1 + 0.3 + 0.3) / 3] * 2)


def test_the_tables_are_probabilities() -> None:
    assert lesion.PRIOR.sum() == pytest.approx(1)
    for sign, rows in lesion.GIVEN_DIAGNOSIS.items():
        assert np.sum(rows, axis=1) == pytest.approx(np.ones(5)), sign
    for modalities in (("clinic",), ("derm",), ("clinic", "derm")):
        for task, table in lesion._joint(modalities).items():
            assert table.sum() == pytest.approx(1)
            marginal = lesion.PRIOR @ np.array(lesion.GIVEN_DIAGNOSIS[task]) if task in POINTS else lesion.PRIOR
            assert table.sum(axis=1) == pytest.approx(marginal)


def test_no_rule_on_drawn_cases_beats_the_ceiling_and_the_best_rule_meets_it() -> None:
    cases = [draw(number) for number in range(6000)]
    sizes = [len(lesion.GIVEN_DIAGNOSIS[sign][0]) for sign in SIGNS]
    column = {seen: k for k, seen in enumerate(product(*map(range, sizes)))}
    shown = [column[tuple(case.shown("clinic").values())] for case in cases]
    for task, table in lesion._joint(("clinic",)).items():
        truth = [case.labels[task] for case in cases]
        best = (table / table.sum(axis=1, keepdims=True)).argmax(axis=0)[shown]
        attained = ceiling("clinic").loc[task, "balanced_accuracy"]
        assert balanced_accuracy_score(truth, best) == pytest.approx(attained, abs=0.025), task
    joint = lesion._joint(("clinic",))["DIAG"]
    score = (joint[2] / joint.sum(axis=0).clip(1e-300))[shown]
    melanoma = [case.labels["DIAG"] == 2 for case in cases]
    assert roc_auc_score(melanoma, score) == pytest.approx(melanoma_ceiling("clinic"), abs=0.012)


def test_more_images_never_lower_the_ceiling_and_dermoscopy_shows_more() -> None:
    clinic, derm, both = ceiling("clinic"), ceiling("derm"), ceiling("clinic", "derm")
    assert (derm > clinic).to_numpy().all()
    assert (both >= derm - 1e-12).to_numpy().all()
    assert both.loc["DIAG", "balanced_accuracy"] > derm.loc["DIAG", "balanced_accuracy"] + 0.01
    assert derm.drop("DIAG").to_numpy() == pytest.approx(1)
    chance = [1 / len(names) for names in TASKS.values()]
    assert (clinic.balanced_accuracy > np.array(chance) + 0.1).all()


def test_the_same_number_draws_the_same_lesion_and_another_another() -> None:
    assert draw(5) == draw(5)
    assert len({str(draw(number).labels) for number in range(20)}) > 10
    assert np.array_equal(render(draw(5), "derm", 32), render(draw(5), "derm", 32))
    assert not np.array_equal(render(draw(5), "derm", 32), render(draw(6), "derm", 32))


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_image_holds_nothing_of_the_truth_but_the_signs_it_shows(modality: str) -> None:
    labels = {"DIAG": 2, "PN": 2, "BWV": 1, "VS": 2, "PIG": 2, "STR": 2, "DaG": 2, "RS": 1}
    hidden = {modality: dict.fromkeys(SIGNS, False)}
    bare = render(Lesion(3, dict.fromkeys(labels, 0), 0, ALL), modality, 48)
    assert np.array_equal(render(Lesion(3, labels, 2, hidden), modality, 48), bare)
    other_diagnosis = {**dict.fromkeys(labels, 0), "DIAG": 4}
    assert np.array_equal(render(Lesion(3, other_diagnosis, 0, ALL), modality, 48), bare)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_class_of_every_sign_changes_the_image_and_only_the_lesion(modality: str) -> None:
    none = dict.fromkeys(TASKS, 0)
    for number in (1, 2, 3):
        bare = render(Lesion(number, none, 0, ALL), modality).astype(int)
        images = {
            (sign, value): render(Lesion(number, none | {sign: value}, 0, ALL), modality).astype(int)
            for sign in POINTS
            for value in range(1, len(TASKS[sign]))
        }
        if modality == "clinic":
            images |= {("elevation", e): render(Lesion(number, none, e, ALL), modality).astype(int) for e in (1, 2)}
        for sign, image in images.items():
            assert (np.abs(image - bare).max(axis=-1) > 12).mean() > 0.004, sign
            assert np.array_equal(image[:5, :5], bare[:5, :5]), f"{sign}: the corner holds no lesion"
        pairs = [(a, b) for a, b in product(images, images) if a < b]
        assert all(np.abs(images[a] - images[b]).max() > 20 for a, b in pairs)


def test_dermoscopy_shows_a_sign_stronger_than_the_photograph() -> None:
    def contrast(modality: str, sign: str) -> float:
        none = dict.fromkeys(TASKS, 0)
        changes = []
        for number in range(6):
            a, b = (render(Lesion(number, none | {sign: value}, 0, ALL), modality).astype(float) for value in (0, 1))
            changes.append(np.abs(a - b).sum())
        return float(np.mean(changes))

    for sign in POINTS:
        assert contrast("derm", sign) > 1.5 * contrast("clinic", sign), sign


def test_the_files_are_those_of_the_release(tmp_path) -> None:
    folder = write_derm7pt(tmp_path / "derm7pt", 60, 40, 30, size=16)
    data = load(folder, size=16)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [60, 40, 30]
    assert data.refused == {"train": (), "valid": (), "test": ()}
    for part in (data.train, data.valid, data.test):
        for row, name in enumerate(part.case[:10]):
            truth = draw(int(name))
            assert part.labels[row].tolist() == list(truth.labels.values())
            for modality in MODALITIES:
                pixels = torch.from_numpy(render(truth, modality, 16)).permute(2, 0, 1)
                assert torch.equal(part.inputs[modality][row], pixels)
    assert not set(data.train.case) & set(data.test.case)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["derm7pt"], "nothing half-written stays"


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path) -> None:
    few, more = (load(write_derm7pt(tmp_path / str(n), n, 40, 40, size=8), size=8).train for n in (50, 60))
    assert more[slice(0, 50)]["case"] == few[slice(0, 50)]["case"]
    assert torch.equal(more.inputs["clinic"][:50], few.inputs["clinic"])


def test_errors_name_what_was_given(tmp_path) -> None:
    with pytest.raises(ValueError, match="number of a lesion is at least 0; got -1"):
        draw(-1)
    with pytest.raises(ValueError, match="unknown modality 'mri'; choose one of"):
        render(draw(0), "mri")
    with pytest.raises(ValueError, match="modalities are .* at least one of them; got"):
        ceiling()
    with pytest.raises(ValueError, match="modalities are .*; got .*'mri'"):
        melanoma_ceiling("mri")
    with pytest.raises(ValueError, match="the part valid has between 1 and 100000 lesions; got 0"):
        write_derm7pt(tmp_path, 1, 0, 1)


# ------------------------------------------------------------------------------------------------------------- the dial
def test_diagnoses_are_wrong_in_the_share_that_was_asked_for() -> None:
    drawn = [draw(number) for number in range(3000)]
    written = [lesion.misread(one, 0.3)[0] for one in drawn]
    wrong = np.mean([a.labels["DIAG"] != b.labels["DIAG"] for a, b in zip(written, drawn, strict=True)])
    assert wrong == pytest.approx(0.3, abs=0.03)
    assert all(a.labels["PN"] == b.labels["PN"] for a, b in zip(written, drawn, strict=True)), "the signs stay"
    assert lesion.misread(drawn[5], 0.3) == lesion.misread(drawn[5], 0.3)


@pytest.mark.parametrize("decoupled", [False, True])
def test_the_label_tells_as_much_about_what_dermoscopy_shows_for_both_kinds(decoupled: bool) -> None:
    pairs = [lesion.misread(draw(number), 0.3, decoupled) for number in range(3000)]
    agree = np.mean([written.labels["DIAG"] == shown.labels["DIAG"] for written, shown in pairs])
    assert agree == pytest.approx(0.7, abs=0.03)
    truth = np.mean([draw(n).labels["DIAG"] == shown.labels["DIAG"] for n, (_, shown) in enumerate(pairs)])
    # anew: right twice, or wrong and by chance back to one of four others
    assert truth == pytest.approx(0.7**2 + 0.3**2 / 4 if decoupled else 1.0, abs=0.03)


def test_noise_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label_noise .* in \[0, 1\); got 1"):
        lesion.misread(draw(0), 1.0)


def test_only_training_cases_are_misread_and_only_their_dermoscopy_is_drawn_anew(tmp_path) -> None:
    sizes = {"train": 40, "valid": 20, "test": 20, "size": 8}
    clean = load(write_derm7pt(tmp_path / "clean", **sizes), 8)
    noisy = load(write_derm7pt(tmp_path / "noisy", **sizes, label_noise=0.5, decoupled=True), 8)
    assert torch.equal(clean.test.labels, noisy.test.labels)
    assert torch.equal(clean.test.inputs["derm"], noisy.test.inputs["derm"])
    assert torch.equal(clean.train.inputs["clinic"], noisy.train.inputs["clinic"])
    assert not torch.equal(clean.train.inputs["derm"], noisy.train.inputs["derm"])
    changed = clean.train.labels != noisy.train.labels
    assert changed[:, 0].any() and not changed[:, 1:].any()


def test_linear_models_of_the_signs_reach_the_ceilings_and_gain_by_guidance_where_labels_are_few_and_wrong() -> None:
    endless = expected_scores(20_000, 20_000, repeats=1)  # signs are independent given the diagnosis: logits are linear
    for row, modality in (("inferior", "clinic"), ("superior", "derm")):
        assert endless[row] == pytest.approx(ceiling(modality).loc["DIAG", "balanced_accuracy"], abs=0.006)
    gains = {
        setting: found["guided"] - found["inferior"]
        for setting in ((15, 600, 0.3), (15, 600, 0.3, True), (600, 600))
        for found in [expected_scores(*setting)]
    }
    assert gains[15, 600, 0.3] > 0.02 and max(gains[15, 600, 0.3, True], gains[600, 600]) < -0.02
