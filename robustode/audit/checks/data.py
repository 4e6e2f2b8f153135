"""data: labels cannot be read off a few coordinates, and test samples are not training samples."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, not_applicable
from robustode.audit.finding import Verdict

ENOUGH = 16  # of so few coordinates every label is a function of "a few"
ACCURATE = 0.98  # accuracy of the small tree
FALL = 0.3  # by which it falls without the coordinates that say most
FOLDS, SCREENED = 5, 32
LEAST = 10  # samples for each class
DUPLICATES = 0.01


def run(case: Case) -> Found:
    """Predict labels by a tree of at most classes − 1 coordinates, cross-validated; look for samples of the training
    split, byte by byte.

    In honest data, too, one pixel may tell two classes apart; but then its neighbours do so nearly as well. A leak is
    told by both: the tree is right on 98 %, and falls by more than 0.3 when the tenth of the coordinates that say most
    about the label is taken away (at most 0.25 on all pairs of classes of digits, MNIST and Fashion-MNIST).
    """
    leak = _leak(case)
    same = _duplicates(case)
    if leak is None and same is None:
        return not_applicable(f"too few samples, or at most {ENOUGH} coordinates, and no training split at hand")
    texts, statuses, details = [], [Verdict.PASS], {}
    value = threshold = None
    if leak is not None:
        accuracy, without, used = leak
        value, threshold = accuracy, ACCURATE
        details |= {"few_coordinates": accuracy, "without_them": without, "coordinates": used}
        said = f"{len(used)} coordinates predict {accuracy:.1%} of the labels"
        if accuracy >= ACCURATE:
            said += f", the others without the most telling tenth {without:.1%}"
        if accuracy >= ACCURATE and accuracy - without > FALL:
            statuses.append(Verdict.FAIL)
            said += f": the labels are leaked by coordinates {', '.join(map(str, used))}"
        texts.append(said)
    samples: tuple[int, ...] = ()
    if same is not None:
        count = int(same.sum())
        details["duplicates"] = count
        texts.append(f"{count} of {len(same)} samples are in the training split too")
        statuses.append(Verdict.FAIL if count > DUPLICATES * len(same) else Verdict.WARN if count else Verdict.PASS)
        samples = case.samples(same.nonzero().squeeze(1))
    status = next(v for v in (Verdict.FAIL, Verdict.WARN, Verdict.PASS) if v in statuses)
    text = "; ".join(texts)
    return Found(status=status, value=value, threshold=threshold, text=text, samples=samples, details=details)


def _leak(case: Case) -> tuple[float, float, list[int]] | None:
    """Return (accuracy, accuracy without the most telling coordinates, coordinates of the tree)."""
    x, y = case.shard.x.flatten(1).double().cpu().numpy(), case.shard.y.cpu().numpy()
    classes = len(np.unique(y))
    if x.shape[1] <= ENOUGH or classes < 2 or len(y) < LEAST * classes:
        return None
    order = torch.randperm(len(y), generator=case.generator("data")).numpy()
    accuracy, used = _tree(x, y, order, classes)
    if accuracy < ACCURATE:
        return accuracy, accuracy, used
    away = max(x.shape[1] // 10, classes - 1)
    rest = np.sort(_telling(x, y)[away:])
    return accuracy, _tree(x[:, rest], y, order, classes)[0], used


def _tree(x: np.ndarray, y: np.ndarray, order: np.ndarray, classes: int) -> tuple[float, list[int]]:
    """Return the cross-validated accuracy of a tree of `classes` leaves, and the coordinates it uses on all samples."""
    from sklearn.tree import DecisionTreeClassifier

    def fit(rows: np.ndarray) -> tuple[DecisionTreeClassifier, np.ndarray]:
        kept = _telling(x[rows], y[rows])[:SCREENED]
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
