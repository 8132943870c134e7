"""From a detector's logits to what can be believed and acted on.

Everything here is fitted on a held-out calibration split and kept as plain numbers.

- *Probabilities*, in one of three ways. Platt scaling (Platt 1999, "Probabilistic outputs for
  support vector machines"): P(generated) = sigmoid(scale · logit + bias), fitted with Platt's
  softened targets, so that a perfectly separated split does not ask for infinite confidence.
  Temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks"): the same with bias 0.
  Isotonic regression (Zadrozny & Elkan 2002, by pool-adjacent-violators), with Laplace's rule of
  succession at both ends (Brümmer & de Villiers 2011, "The BOSARIS Toolkit User Guide").
- *A threshold* at a stated rate of false positives.
- *Abstention*: class-conditional split-conformal prediction (Vovk 2012, "Conditional validity of
  inductive conformal predictors"; Sadinle, Lei & Wasserman 2019, "Least ambiguous set-valued
  classifiers with bounded error levels"; Angelopoulos & Bates 2021, arXiv:2107.07511, section 1).
- *Likelihood ratios*: the log-odds less those of the calibration split's own mixture, cut where
  its faces cannot support more (Vergeer, van Es, de Jongh, Alberink & Stoel 2016, "Numerical
  likelihood ratios outputted by LR systems are often based on extrapolation: when to stop
  extrapolating?").

The promises of threshold and abstention are exact for faces that are exchangeable with the
calibration split's, and only for them. They count faces, and frames of one person are not
exchangeable with those of another: many frames say less than as many people do. Members are stacked
on that same split as well. So with several frames a person the promises are approximate. In a
simulation (24 people a class, 40 frames each, people differing as much as one's frames do), 1.4% of
the untouched faces of new people lay above a threshold that promised 1.04%, and 89.5% were covered
where 90% was promised (in one split of ten, at most 84.5%).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from facekit.core.errors import FacekitError

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]
Method = Literal["platt", "temperature", "isotonic"]

_VERSION = 2  # of the state; the first had scale, bias and threshold only, and no version


@dataclass(frozen=True)
class Calibration:
    """What turns a logit into a probability, a verdict and a likelihood ratio.

    One that was made without the later fields (an old file) gives the same probabilities as ever;
    knowing nothing else, it always abstains, and its likelihood ratios are all 1.

    Attributes:
        scale, bias: P(generated) = sigmoid(scale · logit + bias); the scale is > 0, so the order
            of the faces, and with it the AUC, is the detector's own.
        threshold: a probability; a face that scores above it counts as generated.
        method: how the probabilities were fitted.
        knots: of isotonic regression, rising: (logit, log-odds) of each of its steps, at the mean
            of the step's faces. Between them the log-odds go in a straight line, and beyond them
            with the slope ``scale``, so that no two logits become one.
        fpr: a new untouched face lies above the threshold with at most this probability, if it is
            exchangeable with those of the split; of new people, with about this one.
        coverage: the promise of :meth:`prediction`, as good as that of ``fpr``.
        quantiles: the highest logit that is still like an untouched face, and the lowest that is
            still like a generated one.
        prior: log-odds of a generated face in the calibration split.
        bounds: the lowest and the highest log10 likelihood ratio that the split supports.
        ranges: what all but one in a hundred of the split's faces were like: ``blur`` and
            ``compression`` as in :class:`facekit.types.Quality`, from and to.
        faces: how many the split had.
    """

    scale: float
    bias: float
    threshold: float
    method: Method = "platt"
    knots: tuple[tuple[float, float], ...] = ()
    fpr: float | None = None
    coverage: float | None = None
    quantiles: tuple[float, float] = (math.inf, -math.inf)
    prior: float = 0.0
    bounds: tuple[float, float] = (0.0, 0.0)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    faces: int | None = None

    def log_odds(self, logits: Scores) -> Scores:
        """Calibrated natural log-odds of "generated", float64, of the same shape as ``logits``."""
        logits = np.asarray(logits, np.float64)
        if not self.knots:
            return self.scale * logits + self.bias
        x, y = np.array(self.knots).T
        beyond = logits - np.clip(logits, x[0], x[-1])
        odds: Scores = np.interp(logits, x, y) + self.scale * beyond
        return odds

    def probability(self, logits: Scores) -> Scores:
        """P(generated) in [0, 1], float64, of the same shape as ``logits``."""
        probability: Scores = expit(self.log_odds(logits))
        return probability

    def sets(self, logits: Scores) -> NDArray[np.bool_]:
        """The conformal sets: whether a face is like the untouched, and like the generated.

        If faces are exchangeable, of those of either class a share of at least ``coverage``, and
        at most ``coverage`` + 1 / (n + 1) where no logits tie, is like its own, in the mean over
        calibration splits of n faces of that class. With several frames a person, about that share
        is; it varies more from split to split than n says.

        Returns:
            bool (N, 2), the columns untouched and generated, for logits (N,).
        """
        logits = np.asarray(logits, np.float64)
        return np.stack([logits <= self.quantiles[0], logits >= self.quantiles[1]], axis=-1)

    def prediction(self, logits: Scores) -> NDArray[np.int8]:
        """1 generated, 0 untouched, -1 where the two cannot be told apart; int8 (N,).

        Of the faces of either class at most a share of 1 - ``coverage`` gets the other's verdict,
        as exactly as :meth:`sets` holds. A face that is like neither class lies between the two;
        the threshold then decides, which only adds to the coverage.
        """
        sets = self.sets(logits)
        decided = np.where(
            sets[..., 0] == sets[..., 1], self.probability(logits) > self.threshold, sets[..., 1]
        )
        return np.where(sets.all(-1), -1, decided).astype(np.int8)

    def likelihood_ratio(self, logits: Scores) -> Scores:
        """log10 of P(logit | generated) / P(logit | untouched), of the same shape as ``logits``."""
        ratios = (self.log_odds(logits) - self.prior) / math.log(10)
        bounded: Scores = np.clip(ratios, *self.bounds)
        return bounded

    def to_state(self) -> dict[str, Any]:
        """A plain dict that JSON can hold; quantiles that are infinite are None."""
        return {
            "version": _VERSION,
            "method": self.method,
            "scale": self.scale,
            "bias": self.bias,
            "threshold": self.threshold,
            "knots": [list(knot) for knot in self.knots],
            "fpr": self.fpr,
            "coverage": self.coverage,
            "quantiles": [value if math.isfinite(value) else None for value in self.quantiles],
            "prior": self.prior,
            "bounds": list(self.bounds),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "faces": self.faces,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Calibration":
        """Read what :meth:`to_state` wrote, or the scale, bias and threshold of an old file.

        Raises:
            FacekitError: if it was written by a newer facekit, or is damaged.
        """
        if not isinstance(state, dict) or state.get("version", 1) not in (1, _VERSION):
            version = state.get("version") if isinstance(state, dict) else None
            raise FacekitError(
                f"calibration of version {version!r}; this facekit reads versions 1 and "
                f"{_VERSION}: update facekit, or calibrate the detector again"
            )
        try:
            scale, bias, threshold = (float(state[key]) for key in ("scale", "bias", "threshold"))
            if "version" not in state:
                made = cls(scale, bias, threshold)
            else:
                high, low = state["quantiles"]
                made = cls(
                    scale,
                    bias,
                    threshold,
                    method=state["method"],
                    knots=tuple((float(x), float(y)) for x, y in state["knots"]),
                    fpr=None if state["fpr"] is None else float(state["fpr"]),
                    coverage=None if state["coverage"] is None else float(state["coverage"]),
                    quantiles=(
                        math.inf if high is None else float(high),
                        -math.inf if low is None else float(low),
                    ),
                    prior=float(state["prior"]),
                    bounds=(float(state["bounds"][0]), float(state["bounds"][1])),
                    ranges={
                        str(name): (float(low), float(high))
                        for name, (low, high) in state.get("ranges", {}).items()
                    },
                    faces=None if state.get("faces") is None else int(state["faces"]),
                )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise FacekitError(f"calibration is damaged ({error!r}); train again") from error
        made._check()
        return made

    def _check(self) -> None:
        """Refuse what :func:`calibrate` cannot have made.

        Raises:
            FacekitError: it says what is wrong.
        """
        numbers = [self.scale, self.bias, self.prior, *self.bounds]
        numbers += [number for knot in self.knots for number in knot]
        numbers += [end for ends in self.ranges.values() for end in ends]
        rises = np.diff(np.array(self.knots or [(0.0, 0.0)]), axis=0) > 0
        for holds, what in (
            (all(map(math.isfinite, numbers)), "its numbers must be finite"),
            (self.scale > 0, f"its scale must be > 0, is {self.scale}"),
            (0 <= self.threshold <= 1, f"its threshold must be in 0…1, is {self.threshold}"),
            (self.method in get_args(Method), f"unknown method {self.method!r}"),
            (bool(self.knots) == (self.method == "isotonic"), "knots are of the isotonic method"),
            (bool(rises.all()), "its knots must rise"),
            (self.bounds[0] <= 0 <= self.bounds[1], "its bounds must lie on both sides of 0"),
            (not any(map(math.isnan, self.quantiles)), "its quantiles must be numbers"),
        ):
            if not holds:
                raise FacekitError(f"calibration is damaged ({what}); train again")


def calibrate(
    logits: Scores,
    labels: Labels,
    *,
    method: Method = "platt",
    fpr: float = 0.01,
    coverage: float = 0.9,
) -> Calibration:
    """Fit probabilities, threshold, abstention and likelihood ratios on held-out data.

    Args:
        logits: (N,), the detector's.
        labels: (N,), 1 generated, 0 not; both must occur.
        method: how logits become probabilities.
        fpr: the share of the untouched faces here that may lie above the threshold, in [0, 1).
        coverage: what :meth:`Calibration.prediction` is to promise for each class, in (0, 1). With
            fewer than coverage / (1 - coverage) faces of a class every face is like it, since so
            few support no more.

    Raises:
        FacekitError: if one of the classes is empty, a logit is not a number, or an argument is
            out of its range.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if logits.ndim != 1 or logits.shape != labels.shape:
        raise FacekitError(
            f"calibration needs a label for each logit, got {labels.shape} for {logits.shape}"
        )
    generated, untouched = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    if not generated or not untouched:
        raise FacekitError(
            f"calibration needs both classes, got {untouched} untouched and {generated} generated "
            "faces; give more people or frames"
        )
    if generated + untouched < len(labels):
        raise FacekitError("calibration: labels must be 0 (untouched) or 1 (generated)")
    if not np.isfinite(logits).all():
        raise FacekitError("calibration: the detector gives scores that are not numbers")
    if method not in get_args(Method):
        raise FacekitError(
            f"unknown calibration method '{method}'; allowed: {', '.join(get_args(Method))}"
        )
    if not 0 <= fpr < 1 or not 0 < coverage < 1:
        raise FacekitError(
            f"calibration: fpr must be in [0, 1), coverage in (0, 1); given {fpr} and {coverage}"
        )

    scale, bias = _line(logits, labels, with_bias=method != "temperature")
    knots = _isotonic(logits, labels) if method == "isotonic" else ()
    prior = math.log(generated / untouched)
    bare = Calibration(scale, bias, 0.5, method=method, knots=knots, prior=prior)
    odds = bare.log_odds(logits)
    return Calibration(
        scale,
        bias,
        _threshold(odds, labels, fpr),
        method=method,
        knots=knots,
        # The faces allowed above it and the new one, of which each is as likely to be the highest.
        fpr=(math.floor(fpr * untouched) + 1) / (untouched + 1),
        coverage=coverage,
        quantiles=(
            -_lowest_like(-logits[labels == 0], coverage),
            _lowest_like(logits[labels == 1], coverage),
        ),
        prior=prior,
        bounds=(
            -_upper_bound(-(odds - prior), 1 - labels) / math.log(10),
            _upper_bound(odds - prior, labels) / math.log(10),
        ),
        faces=len(labels),
    )


def _line(logits: Scores, labels: Labels, *, with_bias: bool) -> tuple[float, float]:
    """Scale and bias of the least log loss against Platt's targets."""
    generated, untouched = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    # The class frequencies after one more face of each class was seen.
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
    bounds = [(-12.0, 8.0), (-50.0, 50.0) if with_bias else (0.0, 0.0)]
    fit = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds)
    return float(np.exp(fit.x[0]) / spread), float(fit.x[1])


def _isotonic(logits: Scores, labels: Labels) -> tuple[tuple[float, float], ...]:
    """(mean logit, log-odds) of each step of the isotonic regression of labels on logits.

    One face of each class more at either end keeps every step's odds finite: k faces of one class
    alone are given (k + 1) / (k + 2), not certainty.
    """
    ends = [logits.min() - 1, logits.max() + 1]
    x = np.concatenate([logits, np.repeat(ends, 2)])
    y = np.concatenate([labels, [0, 1, 0, 1]])
    # Only fitting needs it, and it takes seconds to load.
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression().fit(x, y).predict(logits)
    # Steps of one height may differ in their last bits.
    heights, step = np.unique(steps.round(12), return_inverse=True)
    middles = np.bincount(step, logits) / np.bincount(step)
    return tuple((float(a), float(b)) for a, b in zip(middles, logit(heights), strict=True))


def _threshold(odds: Scores, labels: Labels, fpr: float) -> float:
    """The lowest probability with at most ``fpr`` of the untouched faces above it.

    It stands midway (in log-odds) between two neighbouring faces, so that a clear gap between the
    classes is shared by both.
    """
    untouched = np.sort(odds[labels == 0])
    allowed = int(np.floor(fpr * len(untouched)))
    last = untouched[len(untouched) - 1 - allowed]
    above = odds[odds > last]
    return float(expit((last + above.min()) / 2 if len(above) else last + 1.0))


def _lowest_like(logits: Scores, coverage: float) -> float:
    """The k-th lowest of n logits of a class, k = ⌊(n + 1)(1 - coverage)⌋; -∞ where k is 0.

    A new face of the class is as likely to come into each of the n + 1 places among them.
    """
    # Rounded, since (19 + 1) · (1 - 0.9) falls short of 2 in floating point.
    place = math.floor(round((len(logits) + 1) * (1 - coverage), 9))
    return float(np.sort(logits)[place - 1]) if place else -math.inf


def _upper_bound(ratios: Scores, labels: Labels) -> float:
    """The highest natural log likelihood ratio that faces support (Vergeer et al. 2016's ELUB).

    Who acts where the ratio is at least t, since a false alarm costs them t times a miss, pays
    t · P(alarm | 0) + P(miss | 1), and 1 who never acts. The bound is the least t > 1 from which
    on the ratios no longer pay, after one more misleading face of each class was seen. It is at
    most n + 1 for n faces of class 0, of which none misleads.
    """
    alarms, hits = np.sort(ratios[labels == 0]), np.sort(ratios[labels == 1])
    # Between two neighbouring ratios above 1 neither rate changes.
    starts = np.unique(np.concatenate([[0.0], ratios[ratios > 0]]))
    ends = np.append(starts[1:], math.inf)
    alarm = (len(alarms) - np.searchsorted(alarms, starts, "right") + 1) / (len(alarms) + 1)
    miss = (np.searchsorted(hits, starts, "right") + 1) / (len(hits) + 1)
    # The last start may have every hit below it: nothing pays there.
    pays_to = np.log(np.maximum(1 - miss, 1e-300) / alarm)
    first = int(np.argmax(pays_to < ends))
    return float(max(starts[first], pays_to[first]))
