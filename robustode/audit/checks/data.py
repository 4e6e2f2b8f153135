"""data: labels cannot be read off a few coordinates, and test samples are not training samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.finding import Verdict

ENOUGH = 16  # of so few coordinates every label is a function of "a few"
ACCURATE = 0.98  # accuracy of the small tree
NEARLY = 0.9  # from this on it is tried whether fewer coordinates say more
FALL = 0.25  # by which it falls without the coordinates that say most, and two standard errors
FOLDS, SCREENED = 5, 32
LEAST = 10  # samples for each class
DUPLICATES = 0.01


def run(case: Case) -> Found:
    """Predict labels by a tree on few coordinates, cross-validated; look for samples of the training split.

    The tree has one leaf for each class. In honest data, too, one pixel may tell two classes apart; but then others do
    so nearly as well. A leak is told by both: the tree is right on 98 %, and falls by more than 0.25 + 1/√n when
    the coordinates that say most about the label are taken away, a tenth of all, at least as many as classes. Where the
    tree is right on 90 %, coordinates are left out of it one by one: a first split on another spoils a code. (On pairs
    of classes of digits, MNIST and Fashion-MNIST it falls by at most 0.29, with n = 40; for all ten it is below 0.7.)
    Samples are compared to the last bit.
    """
    leak, same = _leak(case), _duplicates(case)
    if leak is None and same is None:
        return not_applicable(f"too few samples, or at most {ENOUGH} coordinates, and no training split at hand")
    texts, status, details = [], Verdict.PASS, {}
    samples: tuple[int, ...] = ()
    if leak is not None:
        details |= {"few_coordinates": leak.accuracy, "without_them": leak.without, "coordinates": leak.used}
        texts.append(leak.text)
        status = Verdict.FAIL if leak.found else status
    if same is not None:
        count = int(same.sum())
        details["duplicates"] = count
        texts.append(f"{count} of {len(same)} samples are in the training split too")
        share = above(count / len(same), fail=DUPLICATES, warn=0.0)
        status = share if status is Verdict.PASS else status
        samples = case.samples(same.nonzero().squeeze(1))
    value, threshold = (None, None) if leak is None else (leak.accuracy, ACCURATE)
    return Found(
        status=status, value=value, threshold=threshold, text="; ".join(texts), samples=samples, details=details
    )


@dataclass(frozen=True, kw_only=True)
class _Leak:
    """Accuracy of the tree, that without the most telling coordinates (None if not asked), coordinates, samples."""

    accuracy: float
    without: float | None
    used: list[int]
    n: int

    @property
    def found(self) -> bool:
        return self.without is not None and self.accuracy - self.without > FALL + self.n**-0.5

    @property
    def text(self) -> str:
        said = f"{len(self.used)} coordinates predict {self.accuracy:.1%} of the labels"
        if self.without is not None:
            said += f", and those that say less about it {self.without:.1%}"
        return said + (f": the label is leaked by coordinates {', '.join(map(str, self.used))}" if self.found else "")


def _leak(case: Case) -> _Leak | None:
    x, y = case.shard.x.flatten(1).double().cpu().numpy(), case.shard.y.cpu().numpy()
    classes = len(np.unique(y))
    if x.shape[1] <= ENOUGH or classes < 2 or len(y) < LEAST * classes:
        return None
    order = torch.randperm(len(y), generator=case.generator("data")).numpy()
    accuracy, used = _tree(x, y, order, classes)
    if accuracy < ACCURATE:
        return _Leak(accuracy=accuracy, without=None, used=used, n=len(y))
    away = max(x.shape[1] // 10, classes)
    rest = np.sort(_telling(x, y)[away:])
    return _Leak(accuracy=accuracy, without=_tree(x[:, rest], y, order, classes)[0], used=used, n=len(y))


def _tree(x: np.ndarray, y: np.ndarray, order: np.ndarray, classes: int) -> tuple[float, list[int]]:
    """Return the cross-validated accuracy of a tree of `classes` leaves, and the coordinates it uses on all samples."""
    accuracy, used = _grown(x, y, order, classes, None)
    best, left = accuracy, used
    while best >= NEARLY and len(left) > 1 and accuracy < 1:
        tried = [_grown(x, y, order, classes, [one for one in left if one != gone]) for gone in left]
        best, left = max(tried, key=lambda one: one[0])
        if best > accuracy:
            accuracy, used = best, left
    return accuracy, used


def _grown(
    x: np.ndarray, y: np.ndarray, order: np.ndarray, classes: int, among: list[int] | None
) -> tuple[float, list[int]]:
    """The same for the tree on some coordinates; None takes those that tell most, in each fold anew."""
    from sklearn.tree import DecisionTreeClassifier

    def fit(rows: np.ndarray) -> tuple[DecisionTreeClassifier, np.ndarray]:
        kept = _telling(x[rows], y[rows])[:SCREENED] if among is None else np.array(among)
        return DecisionTreeClassifier(max_leaf_nodes=classes, random_state=0).fit(x[np.ix_(rows, kept)], y[rows]), kept

    right = 0
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        tree, kept = fit(np.setdiff1d(order, held))
        right += int((tree.predict(x[np.ix_(held, kept)]) == y[held]).sum())
    tree, kept = fit(order)
    return right / len(y), sorted({int(kept[i]) for i in tree.tree_.feature if i >= 0})


def _telling(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the coordinates by the share of their variance that lies between the classes, largest first."""
    mean = x.mean(0)
    total = ((x - mean) ** 2).sum(0)
    between = sum((y == c).sum() * (x[y == c].mean(0) - mean) ** 2 for c in np.unique(y))
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    return np.argsort(-share, kind="stable")


def _duplicates(case: Case) -> Tensor | None:
    """Return which samples are in the training split to the last bit, (n,) bool; None without one."""
    training = case.training()
    if training is None:
        return None
    known = set(_hashes(training.x))
    return torch.tensor([digest in known for digest in _hashes(case.shard.x.float().cpu())])


def _hashes(x: Tensor) -> list[bytes]:
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in x.flatten(1).contiguous().numpy()]


CHECK = Check(
    id="data",
    title="labels are not leaked, and samples are not repeated across splits",
    cheap=True,
    source="Barz & Denzler 2020, arXiv 1902.00423 (duplicates)",
    advice="Remove the coordinates that carry the label, or the repeated samples, then train and evaluate again.",
    run=run,
)
