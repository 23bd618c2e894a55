"""Does isotonic calibration help? The rule that NannyML goes by, for estimates that shall equal its own.

Apart from `stats.calibration` because it needs scikit-learn's shuffled splits to draw the same rows.
"""

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

from holdfast.stats.calibration import Calibrator, FloatArray, as_answered, isotonic

SPLITS, SHARE, BINS, SEED = 10, 0.1, 10, 42
SEPARATED = 0.999
"""With an area under the ROC curve above this the scores stay as they are."""


def calibrated_when_it_helps(y: FloatArray, scores: FloatArray) -> Calibrator:
    """Isotonic on all rows if that lowers the calibration error on held-out splits, else the scores as they are.

    `y` (n,) of 0 and 1, `scores` (n,) in [0, 1]. Ten random tenths are held out in turn; the errors of all of them
    together are taken over ten bins of equally many rows. With one class, or classes that the scores separate, the
    scores stay. Rows are shuffled, so neighbouring rows stand on both sides: for evidence that keeps days together
    use `choose_calibration`.

    >>> scores = np.tile([0.2, 0.8], 200)
    >>> calibrated_when_it_helps(np.tile([0.0, 1.0, 1.0, 0.0], 100), scores).method
    'isotonic'
    """
    if np.unique(y).size < 2 or _separation(y, scores) > SEPARATED:
        return as_answered(scores, scores, scores)
    splits = StratifiedShuffleSplit(n_splits=SPLITS, test_size=SHARE, random_state=SEED).split(scores, y)
    held, answered, calibrated = [], [], []
    for train, test in splits:
        held.append(y[test])
        answered.append(scores[test])
        calibrated.append(_isotonic(y[train], scores[train])(scores[test]))
    before = _error(np.concatenate(held), np.concatenate(answered))
    after = _error(np.concatenate(held), np.concatenate(calibrated))
    return _isotonic(y, scores) if before > after else as_answered(scores, scores, scores)


def _isotonic(y: FloatArray, scores: FloatArray) -> Calibrator:
    distinct, cell = np.unique(scores, return_inverse=True)
    rows = np.bincount(cell).astype(np.float64)
    return isotonic(distinct, rows, np.bincount(cell, weights=y).astype(np.float64))


def _separation(y: FloatArray, scores: FloatArray) -> float:
    cell = np.unique(scores, return_inverse=True)[1]
    rows, positives = np.bincount(cell), np.bincount(cell, weights=y)
    negatives = rows - positives
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def _error(y: FloatArray, p: FloatArray) -> float:
    order = np.argsort(p)
    width = len(p) // BINS
    edges = np.arange(0, len(p) + 1, width)
    edges[-1] = len(p)
    apart = np.add.reduceat(p[order] - y[order], edges[:-1])
    return float(np.abs(apart).sum() / len(p))
