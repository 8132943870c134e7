"""Several detectors' logits into one: stacked generalisation by logistic regression over kinds.

Wolpert 1992, "Stacked Generalization"; Ting & Witten 1999, "Issues in Stacked Generalization",
section 3, for logistic regression on the members' outputs; Breiman 1996, "Stacked Regressions",
section 4, for weights that are kept ≥ 0: members of an ensemble agree so much that free weights
set one off against another, by differences that the next collection does not share.

Members look for different traces, and generated faces come in kinds: drawn as a whole, or forged
from an untouched picture. That the member which knows blending finds none says nothing against a
face's having been drawn as a whole. So every kind has weights of its own (multinomial logistic
regression, untouched faces being the class that the others are compared with), and a face is as
probably generated as it is probably of one kind or another.

The weights come from faces that no member was fitted on, with a ridge penalty, which is chosen by
cross-validation over people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from detectors.calibrate import Labels, Scores
from facekit.core.errors import FacekitError
from facekit.core.progress import log

_PENALTIES = (0.1, 1.0, 10.0, 100.0)  # of the squared weights of logits of unit spread
_FOLDS = 5


@dataclass(frozen=True)
class Stack:
    """Weighted sums of logits, one for each kind of generated face, and what they amount to.

    Attributes:
        weights: for each kind, one of each member, in the members' order.
        biases: for each kind, what is added.
    """

    weights: tuple[tuple[float, ...], ...]
    biases: tuple[float, ...]

    def logits(self, logits: Scores) -> Scores:
        """One logit a face, float64 (N,), of the members' (N, M).

        Raises:
            ValueError: for another number of members.
        """
        total: Scores = logsumexp(self._kinds(logits), axis=1)
        return total

    def parts(self, logits: Scores) -> Scores:
        """What each member adds to a face's logit, float64 (N, M), of the members' (N, M).

        Each kind's sum counts by how probable that kind is among them.

        Raises:
            ValueError: for another number of members.
        """
        shares = softmax(self._kinds(logits), axis=1)
        added: Scores = np.asarray(logits, np.float64) * (shares @ np.array(self.weights))
        return added

    def _kinds(self, logits: Scores) -> Scores:
        """The sums, (N, K)."""
        logits = np.asarray(logits, np.float64)
        if logits.ndim != 2 or logits.shape[1] != len(self.weights[0]):
            raise ValueError(f"expected logits (N, {len(self.weights[0])}), got {logits.shape}")
        # Not a matrix product: what BLAS gives for a face depends on how many stand beside it.
        weights = np.array(self.weights)
        sums: Scores = (logits[:, None, :] * weights).sum(axis=2) + np.array(self.biases)
        return sums

    def to_state(self) -> dict[str, Any]:
        """A plain dict that JSON can hold."""
        return {"weights": [list(row) for row in self.weights], "biases": list(self.biases)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Stack":
        """Read what :meth:`to_state` wrote.

        Raises:
            FacekitError: if it is damaged.
        """
        try:
            weights = tuple(tuple(float(one) for one in row) for row in state["weights"])
            biases = tuple(float(bias) for bias in state["biases"])
        except (KeyError, TypeError, ValueError) as error:
            raise FacekitError(f"stack is damaged ({error!r}); train again") from error
        alike = {len(row) for row in weights}
        if len(alike) != 1 or 0 in alike or len(biases) != len(weights):
            raise FacekitError("stack is damaged (each kind needs a weight a member); train again")
        if not all(np.isfinite(row).all() for row in (*weights, biases)):
            raise FacekitError("stack is damaged (its weights must be finite); train again")
        return cls(weights, biases)


def fit_stack(
    logits: Scores,
    labels: Labels,
    subjects: Sequence[str],
    kinds: Sequence[str] | None = None,
) -> Stack:
    """Fit the members' weights on held-out data.

    Args:
        logits: (N, M), the members'; faces that none of them learnt from.
        labels: (N,), 1 generated, 0 not; both must occur.
        subjects: N people, for the cross-validation; frames of one stay together. With fewer than
            two people a class there is none, and the penalty is 1.
        kinds: N names; those of the untouched faces are passed over. All kinds count alike,
            however many faces each has. None: the generated faces are of one kind.

    Raises:
        FacekitError: if a class is empty, a logit is not a number, or the lengths differ.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if logits.ndim != 2 or not logits.shape[1]:
        raise FacekitError(f"stacking needs logits (faces, members), got {logits.shape}")
    named = np.array(kinds if kinds is not None else [""] * len(labels))
    if not len(logits) == len(labels) == len(subjects) == len(named):
        raise FacekitError(
            f"stacking needs a label and a person for each face, got {len(logits)} faces, "
            f"{len(labels)} labels and {len(subjects)} people"
        )
    if set(np.unique(labels)) != {0, 1}:
        raise FacekitError("stacking needs faces of both classes, labelled 0 and 1")
    if not np.isfinite(logits).all():
        raise FacekitError("stacking: a member gives scores that are not numbers")

    classes = np.zeros(len(labels), np.int64)
    counts = np.ones(len(labels))
    found = np.unique(named[labels == 1])
    for number, kind in enumerate(found, start=1):
        some = (labels == 1) & (named == kind)
        classes[some] = number
        counts[some] = labels.sum() / len(found) / some.sum()
    # The penalty is fair only between columns of one spread.
    spread = logits.std(axis=0)
    spread[spread == 0] = 1.0
    middle = logits.mean(axis=0)
    scaled = (logits - middle) / spread
    groups = np.unique(subjects, return_inverse=True)[1]
    loss, penalty = _choose(scaled, classes, counts, groups)
    weights, biases = _fit(scaled, classes, counts, penalty)
    log.info("stack: log loss %.3f on other people, penalty %g", loss, penalty)
    weights = weights / spread
    biases = biases - weights @ middle
    return Stack(tuple(tuple(row) for row in weights.tolist()), tuple(biases.tolist()))


def _choose(
    logits: Scores, classes: Labels, counts: Scores, groups: NDArray[np.intp]
) -> tuple[float, float]:
    """The least log loss on other people, and its penalty.

    The loss is infinite where there are too few people to tell.
    """
    people = min(len(np.unique(groups[classes == one])) for one in np.unique(classes))
    if people < 2:
        return np.inf, 1.0
    # Only fitting needs it, and it takes seconds to load.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(min(_FOLDS, people), shuffle=True, random_state=0)
    folds = [
        (inside, outside)
        for inside, outside in splitter.split(logits, classes, groups)
        if len(np.unique(classes[inside])) == len(np.unique(classes))
    ]
    if not folds:
        return np.inf, 1.0
    tested = np.sort(np.concatenate([outside for _, outside in folds]))
    tried = []
    for penalty in _PENALTIES:
        loss = np.empty(len(classes))
        for inside, outside in folds:
            weights, biases = _fit(logits[inside], classes[inside], counts[inside], penalty)
            z = logsumexp(logits[outside] @ weights.T + biases, axis=1)
            truth = classes[outside] > 0
            loss[outside] = counts[outside] * (np.logaddexp(0, z) - truth * z)
        # One number a person, else whoever has many frames would decide.
        _, person = np.unique(groups[tested], return_inverse=True)
        each = np.bincount(person, loss[tested]) / np.bincount(person)
        tried.append((float(each.mean()), penalty))
    return min(tried)


def _fit(logits: Scores, classes: Labels, counts: Scores, penalty: float) -> tuple[Scores, Scores]:
    """Weights (K, M) ≥ 0 and biases (K,) of the least log loss plus penalty / 2 · |weights|².

    scikit-learn's logistic regression, which is the same where weights are free, has no bounds.

    Args:
        logits: (N, M).
        classes: (N,), 0 untouched, 1 to K the kinds; all must occur.
        counts: (N,), how much each face counts.
        penalty: of the squared weights.
    """
    members, number = logits.shape[1], int(classes.max())
    truth = np.eye(number + 1)[classes][:, 1:]

    def loss(parameters: Scores) -> tuple[float, Scores]:
        weights = parameters[:-number].reshape(number, members)
        z = logits @ weights.T + parameters[-number:]
        total = logsumexp(np.column_stack([np.zeros(len(z)), z]), axis=1)
        slope = counts[:, None] * (np.exp(z - total[:, None]) - truth)
        value = counts @ (total - (truth * z).sum(axis=1)) + penalty / 2 * (weights**2).sum()
        steep = (slope.T @ logits + penalty * weights).ravel()
        return float(value), np.append(steep, slope.sum(axis=0))

    fit = minimize(
        loss,
        np.zeros(number * (members + 1)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * (number * members) + [(None, None)] * number,
        options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8},
    )
    return fit.x[:-number].reshape(number, members), fit.x[-number:]
