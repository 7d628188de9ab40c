"""What guidance by dermoscopy can give on the lesion phantom, to somebody who sees every shown sign without fail."""

from __future__ import annotations

from itertools import product

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from mmlib.data.derm7pt import TASKS
from mmlib.data.phantoms.lesion.model import GIVEN_DIAGNOSIS, PRIOR, SIGNS, VISIBILITY


def expected_scores(
    labelled: int, pairs: int, noise: float = 0.0, decoupled: bool = False, repeats: int = 100
) -> dict[str, float]:
    """Balanced accuracy of the diagnosis for linear models of the shown signs, in expectation over cases to learn from.

    As in guidance, on signs in place of latents: the heads are logistic regressions with balanced classes, of cases
    whose diagnosis is known; from all pairs a ridge regression gives the signs that dermoscopy shows from those that
    the photograph shows, and the head of dermoscopy decides on them. A network has to learn to see besides.

    Args:
        labelled: cases whose diagnosis is known. pairs: cases with both images, the labelled ones among them.
        noise, decoupled: of the cases, see `mmlib.data.phantoms.lesion.model.misread`.
        repeats: of the simulation, seed 0; test cases are all that can be shown, each with its probability.

    Returns:
        `inferior`, `superior`, `guided`.
    """
    rng, sizes = np.random.default_rng(0), [len(GIVEN_DIAGNOSIS[sign][0]) for sign in SIGNS]
    every = np.array(list(product(*map(range, sizes))))  # (E, 8)
    chances = {modality: _chances(every, modality) for modality in VISIBILITY}  # P(shown | diagnosis), (5, E)

    def flipped(classes: np.ndarray) -> np.ndarray:
        others = (classes + rng.integers(1, len(PRIOR), len(classes))) % len(PRIOR)
        return np.where(rng.random(len(classes)) < noise, others, classes)

    def drawn(classes: np.ndarray) -> np.ndarray:
        uniform = rng.random((len(SIGNS), len(classes), 1))
        tables = [np.array(GIVEN_DIAGNOSIS[sign])[classes].cumsum(axis=1)[:, :-1] for sign in SIGNS]
        return np.stack([(u > t).sum(axis=1) for u, t in zip(uniform, tables, strict=True)], axis=1)

    def shown(signs: np.ndarray, modality: str) -> np.ndarray:
        return signs * (rng.random(signs.shape) < [VISIBILITY[modality][sign] for sign in SIGNS])

    def columns(signs: np.ndarray) -> np.ndarray:
        return np.hstack([np.eye(size)[column] for size, column in zip(sizes, signs.T, strict=True)])

    def balanced(modality: str, says: np.ndarray) -> float:
        return float(np.mean([chances[modality][k, says == k].sum() for k in range(len(PRIOR))]))

    scores: dict[str, list[float]] = {"inferior": [], "superior": [], "guided": []}
    looks = columns(every)
    for _ in range(repeats):
        truth = rng.choice(len(PRIOR), pairs, p=PRIOR)
        label, signs = flipped(truth), drawn(truth)
        photograph = columns(shown(signs, "clinic"))
        dermoscopy = columns(shown(drawn(flipped(label)) if decoupled else signs, "derm"))
        by_photograph, by_dermoscopy = (
            LogisticRegression(class_weight="balanced", max_iter=1000).fit(one[:labelled], label[:labelled])
            for one in (photograph, dermoscopy)
        )
        guidance = Ridge().fit(photograph, dermoscopy)
        scores["inferior"].append(balanced("clinic", by_photograph.predict(looks)))
        scores["superior"].append(balanced("derm", by_dermoscopy.predict(looks)))
        scores["guided"].append(balanced("clinic", by_dermoscopy.predict(guidance.predict(looks))))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _chances(shown: np.ndarray, modality: str) -> np.ndarray:
    """P(shown signs | diagnosis), (5, E)."""
    chances = np.ones((len(TASKS["DIAG"]), len(shown)))
    for sign, column in zip(SIGNS, shown.T, strict=True):
        table, visible = np.array(GIVEN_DIAGNOSIS[sign]), VISIBILITY[modality][sign]
        seen = visible * table
        seen[:, 0] += 1 - visible
        chances *= seen[:, column]
    return chances
