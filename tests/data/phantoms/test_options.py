"""What may be added to the brain phantom: each option does what it says, and each dial has its ceiling."""

import numpy as np
import pytest
from scipy import ndimage

from mmlib.data.phantoms.brain import _moved, ceiling_without_t1ce, make_subject, make_tissues, write_brats
from mmlib.data.phantoms.options import (
    ENHANCES,
    PLAIN,
    REALISTIC,
    SHARE_ENHANCING,
    TIMES,
    Options,
    best_marking,
    enhancement_ceiling,
    read_options,
    site_of,
    tumour_ceiling,
)
from mmlib.modalities import MRI, combinations

SEED = 3
DIAL = np.linspace(0, 1, 11)


@pytest.fixture(scope="module")
def plain():
    return make_subject(SEED, tumour=True)


def test_the_same_options_make_the_same_voxels_and_other_options_do_not(plain):
    first, second = (make_subject(SEED, tumour=True, options=REALISTIC) for _ in range(2))
    for name in MRI:
        assert np.array_equal(first.images[name], second.images[name])
        assert not np.array_equal(first.images[name], plain.images[name])


def test_irregular_tumours_have_more_surface_for_their_volume():
    def roughness(irregular: float) -> float:
        found = []
        for seed in range(4):
            core = make_tissues(seed, tumour=True, options=Options(irregular=irregular)).labels > 0
            surface = core & ~ndimage.binary_erosion(core)
            found.append(surface.sum() / core.sum() ** (2 / 3))
        return float(np.mean(found))

    assert roughness(1.0) > 1.1 * roughness(0.0)


def test_further_foci_lie_apart_and_leave_the_first_as_it_was(plain):
    tissues = make_tissues(SEED, tumour=True, options=Options(multifocal=1.0))
    solid = sum(tissues.fractions[name] for name in ("necrosis", "solid", "enhancing")) > 0.5
    assert 2 <= ndimage.label(solid)[1] <= 4
    assert (tissues.labels[plain.labels > 0] > 0).mean() > 0.98
    assert (tissues.labels > 0).sum() > (plain.labels > 0).sum()


def test_subjects_of_a_site_scan_alike_and_sites_differ():
    by_site = {}
    for seed in range(30):
        by_site.setdefault(site_of(seed, 3).field, set()).add(repr(site_of(seed, 3)))
    assert len(by_site) == 3
    assert all(len(settings) == 1 for settings in by_site.values())
    assert site_of(0, 0).times == TIMES


def test_sites_leave_the_truth_alone_and_change_the_contrast(plain):
    case = make_subject(SEED, tumour=True, options=Options(sites=3))
    assert np.array_equal(case.labels, plain.labels)
    assert not np.array_equal(case.images["t2"], plain.images["t2"])


def test_misregistration_moves_every_modality_but_t1_and_not_the_labels(plain):
    case = make_subject(SEED, tumour=True, options=Options(misregistration=3.0))
    assert np.array_equal(case.labels, plain.labels)
    assert np.array_equal(case.images["t1"], plain.images["t1"])
    for name in ("t1ce", "t2", "flair"):
        same = np.corrcoef(case.images[name][plain.brain_mask], plain.images[name][plain.brain_mask])[0, 1]
        assert same < 0.95, name


def test_shifts_have_the_stated_standard_deviation():
    ball = np.exp(-((np.indices((21, 21, 21)) - 10) ** 2).sum(axis=0) / 18)
    moved = [_moved(ball, np.random.default_rng(seed), 2.0, 4.0) for seed in range(60)]
    shifts = np.array([ndimage.center_of_mass(one) for one in moved]) - 10
    # voxels of 4 mm along each of three axes: 180 values, so the error of their deviation is 5 %
    assert 4.0 * np.std(shifts) == pytest.approx(2.0, rel=0.2)
    assert np.abs(np.mean(shifts)) < 3 * 0.5 / np.sqrt(180)


def test_stripping_removes_fluid_at_the_surface_and_keeps_the_ventricles():
    before, after = (make_tissues(SEED, tumour=False, options=Options(stripped=s)) for s in (False, True))
    lost = before.brain & ~after.brain
    assert 0.02 < lost.sum() / before.brain.sum() < 0.35
    assert not (after.brain & ~before.brain).any()
    fluid = before.fractions["csf"]
    assert fluid[lost].mean() > 2 * fluid[after.brain].mean()
    inner = before.fractions["csf"] * (ndimage.distance_transform_edt(before.brain) > 7)  # voxels of 4 mm
    assert after.fractions["csf"][inner > 0.9].sum() > 0.9 * before.fractions["csf"][inner > 0.9].sum()


def test_flair_alone_gets_structure_of_its_own(plain):
    case = make_subject(SEED, tumour=True, options=Options(flair_texture=0.1))
    changed = [name for name in MRI if not np.array_equal(case.images[name], plain.images[name])]
    assert changed == ["flair"]


def test_shared_0_shows_the_tumour_in_one_modality_and_each_has_its_turn():
    shown = []
    for seed in range(6):
        tissues = make_tissues(seed, tumour=True, options=Options(shared=0.0))
        assert len(tissues.shown_by) == 1
        shown += tissues.shown_by
        if seed < 2:
            assert sum(tissues.without_tumour[name].sum() for name in ("oedema", "necrosis", "solid", "enhancing")) == 0
            case, healthy = (make_subject(seed, tumour=t, options=Options(shared=0.0)) for t in (True, False))
            for name in MRI:  # the same anatomy without the tumour, noise scaled by its mean
                bent = np.corrcoef(case.images[name][case.labels > 0], healthy.images[name][case.labels > 0])[0, 1]
                assert (bent > 0.95) == (name not in tissues.shown_by), name
    assert len(set(shown)) > 1


def test_what_shows_the_tumour_follows_the_dial():
    kept = [make_tissues(seed, 8.0, tumour=True, options=Options(shared=0.5)).shown_by == MRI for seed in range(16)]
    assert 3 <= sum(kept) <= 13


@pytest.mark.parametrize("names", combinations(MRI))
def test_the_ceiling_for_the_whole_tumour_by_hand(names):
    k = len(names)
    assert tumour_ceiling(1.0, names, blind=0.2) == pytest.approx(0.96 + 0.04)
    # seen in k / 4 of the tumours; else the usual place is marked, 0.2 of 0.96 (1 - k / 4), or nothing, 0.04
    blind = max(0.96 * (1 - k / 4) * 0.2, 0.04)
    assert tumour_ceiling(0.0, names, blind=0.2) == pytest.approx(0.96 * k / 4 + blind)
    rising = [tumour_ceiling(shared, names, 0.2) for shared in DIAL]
    assert (np.diff(rising) >= -1e-12).all()


def test_the_ceiling_for_enhancement_has_known_ends_and_never_falls():
    p = np.linspace(*SHARE_ENHANCING, 20_001)
    assert enhancement_ceiling(0.0) == pytest.approx(ENHANCES * (2 * p / (1 + p)).mean(), abs=1e-4)
    assert enhancement_ceiling(1.0) == pytest.approx(1.0)
    curve = [enhancement_ceiling(q) for q in DIAL]
    assert (np.diff(curve) >= -1e-12).all() and (np.diff(curve, 2) >= -1e-6).all()


def test_the_best_marking_is_all_without_a_sign_worth_trusting_and_the_sign_with_one():
    assert best_marking(0.0, 0.4) == best_marking(0.0, 0.0) == 1.0
    assert best_marking(1.0, 0.4) == pytest.approx(0.4)
    assert best_marking(1.0, 0.0) == 0.0


def test_the_sign_is_the_enhancing_sector_at_1_and_shows_in_t2_and_flair(plain):
    tissues = make_tissues(SEED, tumour=True, options=Options(predictable=1.0))
    # on its border the sector counts twice: l - l^2 <= 1/4
    assert np.allclose(tissues.dense["enhancing"], tissues.fractions["enhancing"], atol=0.25)
    assert ceiling_without_t1ce(tissues, 1.0) > 0.98
    assert np.array_equal(tissues.labels, plain.labels)
    case = make_subject(SEED, tumour=True, options=Options(predictable=1.0))
    sector = tissues.dense["enhancing"] > 0.8
    for name, low, high in (("t1", 0.9, 1.0), ("t2", 0.6, 0.9), ("flair", 0.6, 0.9)):
        assert low < case.images[name][sector].mean() / plain.images[name][sector].mean() < high, name


def test_the_ceiling_of_subjects_agrees_with_the_enumeration():
    for q in (0.5, 0.9):
        found = []
        for seed in range(24):
            tissues = make_tissues(seed, 8.0, tumour=True, options=Options(predictable=q))
            found.append(ceiling_without_t1ce(tissues, q))
        assert np.mean(found) == pytest.approx(enhancement_ceiling(q), abs=3 * np.sqrt(q * (1 - q) / 24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared": 1.5}, r"shared must lie in \[0, 1\]; got 1.5"),
        ({"predictable": -0.1}, r"predictable must lie in \[0, 1\]; got -0.1"),
        ({"misregistration": -1}, "misregistration must be at least 0; got -1"),
        ({"sites": 2.5}, "sites must be an integer >= 0; got 2.5"),
        ({"preset": "real"}, "unknown preset 'real'; choose one of"),
        ({"tumor": 1}, r"unknown options of the phantom \['tumor'\]; choose from"),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        read_options(**arguments)


@pytest.mark.parametrize("names", [(), ("t1", "t1"), ("pd",)])
def test_a_set_of_modalities_must_be_one(names):
    with pytest.raises(ValueError, match="available must be some of"):
        tumour_ceiling(0.5, names, 0.2)


def test_a_preset_may_be_changed_and_says_what_is_not_plain():
    assert read_options() == PLAIN and not str(PLAIN)
    assert read_options("realistic", sites=2).sites == 2
    assert str(Options(sites=6, shared=0.5)) == "sites=6 shared=0.5"


def test_files_made_with_other_options_are_made_anew(tmp_path):
    folder = write_brats(tmp_path, [SEED])[0]
    file = folder / f"{folder.name}_t2.nii.gz"
    plain = file.read_bytes()
    write_brats(tmp_path, [SEED], preset="realistic", shared=0.5)
    changed, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert changed != plain
    write_brats(tmp_path, [SEED], preset="realistic", shared=0.5)
    assert file.stat().st_mtime_ns == stamp
