"""Several detectors' logits into one: stacked generalisation by logistic regression.

Wolpert 1992, "Stacked Generalization"; Ting & Witten 1999, "Issues in Stacked Generalization",
section 3, for logistic regression on the members' outputs; Breiman 1996, "Stacked Regressions",
section 4, for weights that are kept ≥ 0: members of an ensemble agree so much that free weights
set one off against another, by differences that the next collection does not share.

The members' weights come from faces that none of them was fitted on, with a ridge penalty. How
strong it is, and whether weights may be negative, is chosen by cross-validation over people; the
freedom of negative weights must be earned by more than a standard error of the loss.

In the same way it is chosen what is added up: the logits, or what each has for a forgery alone,
softplus(logit). Members look for different traces. That one which knows blending finds none in a
picture that was generated as a whole says nothing against its having been generated, and must not
outvote the one that knows generators.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from detectors.calibrate import Labels, Scores
from facekit.core.errors import FacekitError
from facekit.core.progress import log

_PENALTIES = (0.1, 1.0, 10.0, 100.0)  # of the squared weights of logits of unit spread
_FOLDS = 5


@dataclass(frozen=True)
class Stack:
    """A weighted sum of logits.

    Attributes:
        weights: one of each member, in the members' order.
        bias: is added.
        evidence: whether softplus(logit) is added up, which is near 0 for a member that finds
            nothing, in place of the logit.
    """

    weights: tuple[float, ...]
    bias: float
    evidence: bool = False

    def logits(self, logits: Scores) -> Scores:
        """One logit a face, float64 (N,), of the members' (N, M).

        Raises:
            ValueError: for another number of members.
        """
        logits = np.asarray(logits, np.float64)
        if logits.ndim != 2 or logits.shape[1] != len(self.weights):
            raise ValueError(f"expected logits (N, {len(self.weights)}), got {logits.shape}")
        # Not a matrix product: what BLAS gives for a face depends on how many stand beside it.
        said = _said(logits, self.evidence)
        total: Scores = (said * np.array(self.weights)).sum(axis=1) + self.bias
        return total

    def to_state(self) -> dict[str, Any]:
        """A plain dict that JSON can hold."""
        return {"weights": list(self.weights), "bias": self.bias, "evidence": self.evidence}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Stack":
        """Read what :meth:`to_state` wrote.

        Raises:
            FacekitError: if it is damaged.
        """
        try:
            weights = tuple(float(weight) for weight in state["weights"])
            stack = cls(weights, float(state["bias"]), bool(state.get("evidence", False)))
        except (KeyError, TypeError, ValueError) as error:
            raise FacekitError(f"stack is damaged ({error!r}); train again") from error
        if not stack.weights or not np.isfinite([*stack.weights, stack.bias]).all():
            raise FacekitError("stack is damaged (its weights must be finite); train again")
        return stack


def fit_stack(
    logits: Scores, labels: Labels, subjects: Sequence[str], weights: Scores | None = None
) -> Stack:
    """Fit the members' weights on validation data.

    Args:
        logits: (N, M), the members'; faces that none of them learnt from.
        labels: (N,), 1 generated, 0 not; both must occur.
        subjects: N people, for the cross-validation; frames of one stay together. With fewer than
            two people a class there is none: weights ≥ 0 under a penalty of 1.
        weights: (N,), how much each face counts, > 0; None: all alike.

    Raises:
        FacekitError: if a class is empty, a logit is not a number, or the lengths differ.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if logits.ndim != 2 or not logits.shape[1]:
        raise FacekitError(f"stacking needs logits (faces, members), got {logits.shape}")
    if not len(logits) == len(labels) == len(subjects):
        raise FacekitError(
            f"stacking needs a label and a person for each face, got {len(logits)} faces, "
            f"{len(labels)} labels and {len(subjects)} people"
        )
    if set(np.unique(labels)) != {0, 1}:
        raise FacekitError("stacking needs faces of both classes, labelled 0 and 1")
    if not np.isfinite(logits).all():
        raise FacekitError("stacking: a member gives scores that are not numbers")

    groups = np.unique(subjects, return_inverse=True)[1]
    counts = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    tried = {
        evidence: _try(_said(logits, evidence), labels, groups, counts)
        for evidence in (False, True)
    }
    evidence = tried[True].loss < tried[False].loss
    best = tried[evidence]
    log.info(
        "stack: log loss %.3f on other people (of %s %.3f), penalty %g, weights %s",
        *(best.loss, "logits" if evidence else "evidence alone", tried[not evidence].loss),
        *(best.penalty, "of either sign" if best.free else "kept ≥ 0"),
    )
    return Stack(best.weights, best.bias, evidence)


def _said(logits: Scores, evidence: bool) -> Scores:
    """What is added up of each logit."""
    return np.logaddexp(0, logits) if evidence else logits


class _Tried(NamedTuple):
    """One way of adding up: its log loss on other people, and what was fitted on all."""

    loss: float
    penalty: float
    free: bool
    weights: tuple[float, ...]
    bias: float


def _try(said: Scores, labels: Labels, groups: NDArray[np.intp], counts: Scores) -> _Tried:
    # The penalty is fair only between columns of one spread.
    spread = said.std(axis=0)
    spread[spread == 0] = 1.0
    middle = said.mean(axis=0)
    scaled = (said - middle) / spread
    loss, penalty, free = _choose(scaled, labels, groups, counts)
    weights, bias = _fit(scaled, labels, counts, penalty, free=free)
    weights = weights / spread
    return _Tried(loss, penalty, free, tuple(weights.tolist()), float(bias - weights @ middle))


def _choose(
    logits: Scores, labels: Labels, groups: NDArray[np.intp], counts: Scores
) -> tuple[float, float, bool]:
    """The least log loss on other people; its penalty, and whether weights may be negative.

    The loss is infinite where there are too few people to tell.
    """
    people = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    if people < 2:
        return np.inf, 1.0, False
    # Only fitting needs it, and it takes seconds to load.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(min(_FOLDS, people), shuffle=True, random_state=0)
    folds = [
        (inside, outside)
        for inside, outside in splitter.split(logits, labels, groups)
        if 0 < labels[inside].sum() < len(inside)
    ]
    if not folds:
        return np.inf, 1.0, False
    tested = np.sort(np.concatenate([outside for _, outside in folds]))
    losses: dict[bool, tuple[float, float, Scores]] = {}
    for free in (False, True):
        tried = []
        for penalty in _PENALTIES:
            loss = np.empty(len(labels))
            for inside, outside in folds:
                weights, bias = _fit(
                    logits[inside], labels[inside], counts[inside], penalty, free=free
                )
                z = logits[outside] @ weights + bias
                loss[outside] = counts[outside] * (np.logaddexp(0, z) - labels[outside] * z)
            # One number a person, else whoever has many frames would decide.
            _, person = np.unique(groups[tested], return_inverse=True)
            each = np.bincount(person, loss[tested]) / np.bincount(person)
            tried.append((float(each.mean()), penalty, each))
        losses[free] = min(tried, key=lambda entry: entry[:2])
    gain = losses[False][2] - losses[True][2]
    free = bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))
    least, penalty, _ = losses[free]
    return least, penalty, free


def _fit(
    logits: Scores, labels: Labels, counts: Scores, penalty: float, *, free: bool
) -> tuple[Scores, float]:
    """Weights (M,) and bias of the least total log loss plus penalty / 2 · |weights|²."""
    members = logits.shape[1]

    def loss(parameters: Scores) -> tuple[float, Scores]:
        weights, bias = parameters[:-1], parameters[-1]
        z = logits @ weights + bias
        slope = counts * (expit(z) - labels)
        value = counts @ (np.logaddexp(0, z) - labels * z) + penalty / 2 * weights @ weights
        return float(value), np.append(slope @ logits + penalty * weights, slope.sum())

    # scikit-learn's logistic regression, which is the same where weights are free, has no bounds.
    bounds = [(None if free else 0.0, None)] * members + [(None, None)]
    fit = minimize(
        loss,
        np.zeros(members + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8},
    )
    return fit.x[:-1], float(fit.x[-1])
