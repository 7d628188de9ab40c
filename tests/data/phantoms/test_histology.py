"""The glioma phantom: the counted-out ceiling, what each MRI modality can show, slides that differ by their look."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from mmlib.data.phantoms.glioma import drawing as glioma
from mmlib.data.phantoms.glioma import model as histology
from mmlib.data.phantoms.glioma.drawing import ENHANCEMENT, LOOKS, OEDEMA, patches, volumes
from mmlib.data.phantoms.glioma.model import GIVEN_CLASS, ceiling, draw, expected_scores, misread, write_radpath
from mmlib.data.radpath import load
from mmlib.modalities import MRI


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds are G; a ring tells G by 0.9 to 0.2, patches tell O from A a little; oedema tells nothing."""
    monkeypatch.setattr(histology, "PRIOR", np.array([4, 1, 1]) / 6)
    enhancement = np.array([(0.1, 0.0, 0.9), (0.3, 0.5, 0.2), (0.7, 0.1, 0.2)])
    monkeypatch.setitem(GIVEN_CLASS, "enhancement", enhancement)
    monkeypatch.setitem(GIVEN_CLASS, "oedema", np.full((3, 2), 0.5))
    monkeypatch.setitem(GIVEN_CLASS, "look", np.array([(0.8, 0.0, 0.2), (0.0, 1.0, 0.0), (0.2, 0.0, 0.8)]))


def test_the_ceiling_by_hand(tiny) -> None:
    # t1 sees a ring or none: ring -> G 0.9, none -> O or A 0.8; the third class is never named.
    assert ceiling("t1")["balanced_accuracy"] == pytest.approx((0.9 + 0.8) / 3)
    # t1ce: ring -> G 0.9, patchy -> O 0.5, none -> A 0.7.
    assert ceiling("t1ce")["balanced_accuracy"] == pytest.approx((0.9 + 0.5 + 0.7) / 3)
    assert ceiling("t1ce", "t2") == ceiling("t1ce") and ceiling("t2") == ceiling("flair")
    # Accuracy by t1ce: ring -> G 4/6 x 0.9; patchy -> O 1/6 x 0.5; none -> A (0.7/6 against 0.4/6).
    assert ceiling("t1ce")["accuracy"] == pytest.approx((3.6 + 0.5 + 0.7) / 6)
    assert ceiling("slide")["balanced_accuracy"] == pytest.approx((0.8 + 1 + 0.8) / 3)
    # t1 and slide: necrotic with a ring -> G 0.72, without -> A 0.16; fried egg -> O;
    # fibrillary with a ring -> G 0.18 (A: 0.16), without -> A 0.64.
    assert ceiling("t1", "slide")["balanced_accuracy"] == pytest.approx((0.72 + 0.16 + 1 + 0.18 + 0.64) / 3)


def test_the_tables_are_probabilities_and_separate_in_the_slide() -> None:
    assert histology.PRIOR.sum() == pytest.approx(1)
    assert all(table.sum(axis=1) == pytest.approx(np.ones(3)) for table in GIVEN_CLASS.values())
    best = {name: ceiling(*name.split("+"))["balanced_accuracy"] for name in ("t1", "t1ce", "slide", "t1ce+slide")}
    assert 1 / 3 + 0.2 < best["t1"] <= best["t1ce"] < best["slide"] - 0.15
    assert best["t1ce+slide"] > best["slide"] + 0.01


def test_no_rule_on_drawn_cases_beats_the_ceiling_and_the_best_rule_meets_it() -> None:
    cases = [draw(number) for number in range(5000)]
    likely = GIVEN_CLASS["enhancement"][:, None, :, None, None] * GIVEN_CLASS["oedema"][:, None, None, :, None]
    likely = (likely * GIVEN_CLASS["look"][:, None, None, None, :])[:, 0]
    seen = [(ENHANCEMENT.index(c.enhancement), OEDEMA.index(c.oedema), LOOKS.index(c.look)) for c in cases]
    named = [int(likely[:, e, o, look].argmax()) for e, o, look in seen]
    truth = [case.label for case in cases]
    assert balanced_accuracy_score(truth, named) == pytest.approx(
        ceiling("t1ce", "slide")["balanced_accuracy"], abs=0.025
    )
    without_slide = [int(likely.sum(axis=-1)[:, e, o].argmax()) for e, o, _ in seen]
    assert balanced_accuracy_score(truth, without_slide) == pytest.approx(
        ceiling("t1ce")["balanced_accuracy"], abs=0.025
    )


def test_patchy_enhancement_shows_in_t1ce_alone_and_a_ring_in_all() -> None:
    for number in (1, 2, 3):
        none, patchy, ring = (volumes(number, enhancement, "much") for enhancement in ENHANCEMENT)
        for modality in MRI:
            same = np.array_equal(none[modality], patchy[modality])
            assert same == (modality != "t1ce")
            assert not np.array_equal(none[modality], ring[modality])


def test_enhancing_tissue_is_bright_in_t1ce_and_oedema_in_flair() -> None:
    for number in (4, 5):
        none, ring = volumes(number, "none", "little"), volumes(number, "ring", "little")
        lit = ring["t1ce"] > 1.4 * np.maximum(none["t1ce"], 200)
        assert 20 < lit.sum() < 3000
        much = volumes(number, "none", "much")["flair"].astype(int)
        brighter = (much > 1.15 * none["flair"]) & (none["flair"] > 0)
        darker = (much < 0.85 * none["flair"]) & (none["flair"] > 0)
        assert brighter.sum() > 5 * darker.sum() + 50


def test_a_volume_is_brain_around_a_tumour() -> None:
    for number in range(8):
        images = volumes(number, "ring", "much")
        assert list(images) == list(MRI)
        assert all(image.shape == (24, 24, 24) and image.dtype == np.int16 for image in images.values())
        brain = images["t1"] > 0
        assert brain.mean() > 0.35 and all(np.array_equal(image > 0, brain) for image in images.values())


def test_every_anatomy_has_room_for_a_tumour() -> None:
    for number in range(glioma.ANATOMIES):
        fractions, corners = glioma._anatomy(number)
        assert len(corners) > 100 and fractions.shape[0] == 3


def test_looks_differ_as_they_are_described() -> None:
    def mean_over(look: str, of) -> float:
        return float(np.mean([of(patches(number, look)) for number in range(12)]))

    def dark(bag: np.ndarray) -> float:  # share of nuclei
        return (bag[..., 0] < 130).mean()

    def clear(bag: np.ndarray) -> float:  # halos: hardly any eosin
        return (bag[..., 1] > 215).mean()

    def deep_pink(bag: np.ndarray) -> float:  # necrosis
        return ((bag[..., 0] > 190) & (bag[..., 1] < 135)).mean()

    nuclei, halos, pink = ({look: mean_over(look, of) for look in LOOKS} for of in (dark, clear, deep_pink))
    assert nuclei["necrotic"] > 1.4 * max(nuclei["fried egg"], nuclei["fibrillary"])
    assert halos["fried egg"] > 2 * max(halos["necrotic"], halos["fibrillary"])
    assert pink["necrotic"] > 2 * max(pink["fried egg"], pink["fibrillary"])


def test_stroma_is_the_same_whatever_the_class() -> None:
    shares = []
    for number in range(30):
        bags = [patches(number, look) for look in LOOKS]
        telling = {tuple((bags[a] != bags[b]).any(axis=(1, 2, 3))) for a, b in ((0, 1), (0, 2), (1, 2))}
        assert len(telling) == 1, "the same patches tell, the others are alike to the last pixel"
        shares.append(np.mean(telling.pop()))
    assert min(shares) >= 3 / 12 and np.mean(shares) == pytest.approx(0.63, abs=0.08)


def test_the_files_are_read_back(tmp_path) -> None:
    folder = write_radpath(tmp_path / "radpath", 20, 21, 22, modalities=("t1ce",), count=4, size=16)
    data = load(folder)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [20, 21, 22]
    batch = data.test[:]
    assert batch["inputs"]["mri"].shape == (22, 1, 24, 24, 24) and batch["inputs"]["slide"].shape == (22, 4, 3, 16, 16)
    for row, name in enumerate(batch["case"]):
        truth = draw(int(name.rsplit("-", 1)[1]))
        assert batch["label"][row] == truth.label
        drawn = torch.from_numpy(patches(truth.number, truth.look, 4, 16)).permute(0, 3, 1, 2)
        assert torch.equal(batch["inputs"]["slide"][row] * 255, drawn.float())
        voxels = volumes(truth.number, truth.enhancement, truth.oedema)["t1ce"].transpose(2, 1, 0)
        correlation = np.corrcoef(voxels.ravel(), batch["inputs"]["mri"][row].flatten())[0, 1]
        assert correlation == pytest.approx(1, abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["radpath"], "nothing half-written stays"


def test_the_same_number_draws_the_same_glioma_and_another_another() -> None:
    assert draw(5) == draw(5) and len({draw(number).label for number in range(30)}) == 3
    assert np.array_equal(patches(5, "necrotic"), patches(5, "necrotic"))
    assert not np.array_equal(patches(5, "necrotic"), patches(6, "necrotic"))
    assert np.array_equal(volumes(5, "ring", "much")["t2"], volumes(5, "ring", "much")["t2"])


def test_errors_name_what_was_given(tmp_path) -> None:
    with pytest.raises(ValueError, match="number of a glioma is at least 0; got -1"):
        draw(-1)
    with pytest.raises(ValueError, match="a slide has at least 3 patches; got 2"):
        patches(0, "necrotic", count=2)
    with pytest.raises(ValueError, match="modalities are .* at least one of them; got"):
        ceiling()
    with pytest.raises(ValueError, match="modalities are .*; got .*'derm'"):
        ceiling("derm")
    with pytest.raises(ValueError, match="the part test has between 1 and 100000 gliomas; got 0"):
        write_radpath(tmp_path, 1, 1, 0)
    with pytest.raises(ValueError, match="modalities are .*; got .*'pd'"):
        write_radpath(tmp_path, 1, 1, 1, modalities=("pd",))


@pytest.mark.parametrize("decoupled", [False, True])
def test_label_and_slide_tell_as_much_about_each_other_for_both_kinds(decoupled: bool, tiny) -> None:
    drawn = [draw(number) for number in range(3000)]
    read = [misread(one, 0.3, decoupled) for one in drawn]
    wrong = np.mean([a.label != b.label for (a, _), b in zip(read, drawn, strict=True)])
    assert wrong == pytest.approx(0.3, abs=0.03)
    assert all(look == one.look for (_, look), one in zip(read, drawn, strict=True)) != decoupled
    # only O looks like fried eggs, and always: the share of O among labels O is the chance that the label is right
    given_label = [look == LOOKS[1] for written, look in read if written.label == 1]
    truth = [look == LOOKS[1] for (_, look), one in zip(read, drawn, strict=True) if one.label == 1]
    if decoupled:  # anew: right twice, or wrong and by chance back to it
        assert np.mean(given_label) == pytest.approx(0.7, abs=0.06)
        assert np.mean(truth) == pytest.approx(0.7**2 + 0.3**2 / 2, abs=0.06)
    else:  # 1/6 right, and 5/6 of others of which 0.15 come here
        assert np.mean(given_label) == pytest.approx(0.7 / (0.7 + 5 * 0.15), abs=0.06)
        assert np.mean(truth) == 1
    with pytest.raises(ValueError, match=r"label_noise .* in \[0, 1\); got 1"):
        misread(drawn[0], 1.0)


def test_only_training_gliomas_are_misread_and_only_their_slides_are_drawn_anew(tmp_path) -> None:
    sizes = {"train": 20, "valid": 6, "test": 6, "modalities": ["t1ce"], "count": 3, "size": 8}
    clean = load(write_radpath(tmp_path / "clean", **sizes), "t1ce")
    noisy = load(write_radpath(tmp_path / "noisy", **sizes, label_noise=0.5, decoupled=True), "t1ce")
    same = {}
    for part in ("train", "test"):
        first, second = (getattr(data, part)[:]["inputs"] for data in (clean, noisy))
        same |= {(part, name): torch.equal(first[name], second[name]) for name in first}
    assert same == {("train", "mri"): True, ("train", "slide"): False, ("test", "mri"): True, ("test", "slide"): True}
    assert torch.equal(clean.test.labels, noisy.test.labels)
    assert not torch.equal(clean.train.labels, noisy.train.labels)


def test_findings_that_are_written_down_are_those_that_images_show(tmp_path) -> None:
    sizes = {"train": 20, "valid": 1, "test": 1, "modalities": ["t1ce"], "count": 3, "size": 8}
    folder = write_radpath(tmp_path, **sizes, label_noise=0.5, decoupled=True, findings=True)
    table = pd.read_csv(folder / "findings.csv", keep_default_na=False).set_index("case")
    truth = [draw(int(name[-6:])) for name in table.index]
    assert [(one.enhancement, one.oedema) for one in truth] == list(
        zip(table["mri_enhancement"], table["mri_oedema"], strict=True)
    )
    looks = [misread(one, 0.5, True)[1] if one.number < 100_000 else one.look for one in truth]
    assert looks == table["slide_look"].tolist() != [one.look for one in truth]


def test_counting_reaches_the_ceilings_and_guidance_helps_where_slides_know_more_than_labels() -> None:
    endless = expected_scores(50_000, 50_000, 0.3, repeats=3)
    for row, modality in (("inferior", "t1ce"), ("superior", "slide")):
        assert endless[row] == pytest.approx(ceiling(modality)["balanced_accuracy"], abs=0.003)
    few, misled = expected_scores(100, 600, 0.3, repeats=200), expected_scores(100, 600, 0.3, True, repeats=200)
    right = expected_scores(100, 600, 0.0, repeats=200)
    assert few["guided"] - few["inferior"] > 0.03 > 0.01 > right["guided"] - right["inferior"]
    assert misled["guided"] < misled["inferior"]
