"""From a network's logits to probabilities that can be believed, and a threshold to act on.

Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines"): P(generated) =
sigmoid(scale · logit + bias), fitted on validation data with Platt's softened targets, so that a
perfectly separated validation set does not ask for infinite confidence. A temperature (Guo et al.
2017) is its special case of bias 0; the bias is kept because the classes' margins differ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from facekit.core.errors import FacekitError

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """What turns a logit into a probability and a verdict.

    Attributes:
        scale, bias: P(generated) = sigmoid(scale · logit + bias); the scale is > 0, so the order
            of the faces, and with it the AUC, is the network's own.
        threshold: a probability; a face that scores above it counts as generated.
    """

    scale: float
    bias: float
    threshold: float

    def probability(self, logits: Scores) -> Scores:
        """P(generated) in [0, 1], float64, of the same shape as ``logits``."""
        probability: Scores = expit(self.scale * np.asarray(logits, np.float64) + self.bias)
        return probability


def calibrate(logits: Scores, labels: Labels, *, fpr: float = 0.01) -> Calibration:
    """Fit scale, bias and threshold on validation data.

    Args:
        logits: (N,), the network's.
        labels: (N,), 1 generated, 0 not; both must occur.
        fpr: the share of validation's untouched faces that may lie above the threshold.

    Raises:
        FacekitError: if one of the classes is empty or a logit is not a number.
    """
    logits = np.asarray(logits, np.float64)
    generated = int(np.sum(labels == 1))
    untouched = int(np.sum(labels == 0))
    if not generated or not untouched:
        raise FacekitError(
            f"calibration needs both classes, got {untouched} untouched and {generated} generated "
            "faces; give more people or frames"
        )
    if not np.isfinite(logits).all():
        raise FacekitError("calibration: the detector gives scores that are not numbers")

    # Platt's targets: the class frequencies after one more face of each class was seen.
    targets = np.where(labels == 1, (generated + 1) / (generated + 2), 1 / (untouched + 2))
    # Logits of any size are brought to unit spread first; the optimiser then needs no tuning.
    spread = float(logits.std()) or 1.0

    def loss(parameters: Scores) -> tuple[float, Scores]:
        z = np.exp(parameters[0]) * logits / spread + parameters[1]
        slope = (expit(z) - targets) / len(z)
        gradient = np.array([slope @ (np.exp(parameters[0]) * logits / spread), slope.sum()])
        return float(np.mean(np.logaddexp(0, z) - targets * z)), gradient

    # The scale is fitted as a logarithm within bounds: it can neither turn negative, which would
    # turn the detector's order round, nor overflow.
    bounds = [(-12.0, 8.0), (-50.0, 50.0)]
    fit = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds)
    scale, bias = float(np.exp(fit.x[0]) / spread), float(fit.x[1])
    return Calibration(scale, bias, _threshold(scale * logits + bias, labels, fpr))


def _threshold(logits: Scores, labels: Labels, fpr: float) -> float:
    """The lowest probability with at most ``fpr`` of the untouched faces above it.

    It stands midway (in logits) between two neighbouring faces, so that a clear gap between the
    classes is shared by both.
    """
    untouched = np.sort(logits[labels == 0])
    allowed = int(np.floor(fpr * len(untouched)))
    last = untouched[len(untouched) - 1 - allowed]
    above = logits[logits > last]
    return float(expit((last + above.min()) / 2 if len(above) else last + 1.0))
