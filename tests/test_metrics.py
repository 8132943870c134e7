"""The metrics against scikit-learn, closed forms and slow oracles of their own."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression

from detectors import metrics
from detectors.metrics import METRICS, Metric
from facekit.core.errors import FacekitError
from facekit.core.seed import Purpose, rng

_DRAWS = 150  # instead of a thousand, where the number does not matter
FEW = settings(max_examples=40, deadline=None)


@st.composite
def _scored(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores with many ties, and labels of both classes."""
    count = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    labels[:2] = [0, 1]
    return np.array(scores) / 12, np.array(labels)


def _scores(count: int, distance: float = 1.5, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    logits = random.normal(size=count) + distance * (labels - 0.5)
    return 1 / (1 + np.exp(-logits)), labels


@FEW
@given(_scored())
def test_metrics_are_scikit_learns(scored: Any) -> None:
    scores, labels = scored
    assert metrics.auc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores))
    assert metrics.average_precision(scores, labels) == pytest.approx(
        sk.average_precision_score(labels, scores)
    )
    assert metrics.brier(scores, labels) == pytest.approx(sk.brier_score_loss(labels, scores))
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    for most in (0.0, 0.01, 0.3, 1.0):
        assert metrics.tpr_at(scores, labels, most) == pytest.approx(tpr[fpr <= most].max())
    assert metrics.eer(scores, labels) == pytest.approx(np.interp(0, fpr + tpr - 1, fpr))
    # Without what lies on straight lines the curve is still the same one.
    curve = np.array(metrics.roc(scores, labels))
    assert np.interp(fpr, *curve.T)[-1] == 1 and tuple(curve[0]) == (0, 0)
    assert sk.auc(*curve.T) == pytest.approx(metrics.auc(scores, labels))


@FEW
@given(_scored(), st.randoms(use_true_random=False))
def test_weights_count_a_row_as_often_as_they_say(scored: Any, chance: Any) -> None:
    scores, labels = scored
    weights = np.array([[chance.randint(0, 3) for _ in labels] for _ in range(4)], np.float64)
    weights[:, :2] = 1  # both classes occur
    for metric, _ in METRICS.values():
        together = metric.of_draws(scores, labels, weights)
        for row, value in zip(weights, together, strict=True):
            again = np.repeat(np.arange(len(labels)), row.astype(int))
            assert value == pytest.approx(metric(scores[again], labels[again]))


def test_two_normal_classes_give_what_theory_says() -> None:
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    distance = 1.7
    scores = np.concatenate([quantiles, quantiles + distance])
    labels = np.repeat([0, 1], 20_000)
    assert metrics.auc(scores, labels) == pytest.approx(norm.cdf(distance / 2**0.5), abs=1e-3)
    assert metrics.eer(scores, labels) == pytest.approx(norm.cdf(-distance / 2), abs=1e-3)
    for fpr, metric in ((0.01, metrics.tpr_at_1), (0.001, metrics.tpr_at_01)):
        expected = norm.sf(norm.isf(fpr) - distance)
        assert metric(scores, labels) == pytest.approx(expected, abs=3e-3)
    # The likelihood ratio of two normal distributions is known: no calibration is better.
    ratios = (distance * scores - distance**2 / 2) / np.log(10)
    cost = metrics.cllr(ratios, labels)
    assert metrics.min_cllr(scores, labels) == pytest.approx(cost, abs=0.01)
    assert metrics.cllr(ratios + 1, labels) > cost < metrics.cllr(2 * ratios, labels)


def test_cllr_of_a_few_by_hand() -> None:
    labels = np.array([1, 1, 0, 0])
    assert metrics.cllr(np.zeros(4), labels) == 1, "who knows nothing loses a bit"
    ratios = np.log10([9.0, 1.0, 1 / 3, 1.0])
    # log2(1 + 1/9), log2(2) and log2(1 + 1/3), log2(2): the mean of either class, and of both.
    expected = (np.log2(10 / 9) + 1 + np.log2(4 / 3) + 1) / 4
    assert metrics.cllr(ratios, labels) == pytest.approx(expected)
    certain = np.array([1.0, 0.0, 0.0, 0.0])
    wrong = metrics.cllr(metrics.log_ratio(certain), labels)
    assert wrong == pytest.approx(np.log2(1e7) / 4, abs=1e-5), "a certain mistake costs 23 bits"
    # Odds of 3 where a third was expected: the evidence says 9.
    assert metrics.log_ratio(np.array([0.75]), prior=0.25) == pytest.approx(np.log10(9))


@FEW
@given(_scored())
def test_min_cllr_is_that_of_the_best_monotone_calibration(scored: Any) -> None:
    scores, labels = scored
    posterior = IsotonicRegression(y_min=0, y_max=1).fit_transform(scores, labels)
    odds = labels.sum() / (1 - labels).sum()
    with np.errstate(divide="ignore"):
        ratios = np.log10(posterior) - np.log10(1 - posterior) - np.log10(odds)
        of = [np.log2(1 + 10.0 ** -ratios[labels == 1]), np.log2(1 + 10.0 ** ratios[labels == 0])]
    least = metrics.min_cllr(scores, labels)
    assert least == pytest.approx((of[0].mean() + of[1].mean()) / 2)
    assert 0 <= least <= 1 + 1e-12
    for slope, shift in ((1, 0), (2, 0.3), (0.5, -0.2)):
        assert least <= metrics.cllr(slope * (scores - 0.5) + shift, labels) + 1e-9


def test_calibration_error_by_hand_and_as_its_diagram_has_it() -> None:
    scores = np.array([0.02, 0.08, 0.95, 1.0, 0.5])
    labels = np.array([0, 1, 1, 1, 0])
    expected = (2 * abs(0.05 - 0.5) + 2 * abs(0.975 - 1) + 0.5) / 5
    assert metrics.ece(scores, labels) == pytest.approx(expected)
    rows = metrics.reliability(scores, labels)
    assert [row["count"] for row in rows] == [2, 1, 2]
    assert rows[0] == {"low": 0, "high": 0.1, "count": 2, "mean": 0.05, "share": 0.5}
    by_rows = sum(row["count"] * abs(row["mean"] - row["share"]) for row in rows) / 5
    assert metrics.ece(scores, labels) == pytest.approx(by_rows)
    assert metrics.ece(scores, labels, 1) == pytest.approx(abs(scores.mean() - 0.6))


@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        ([0.1, 0.2], [1, 1], "2 generated and 0 untouched"),
        ([0.1, 0.2], [0, 0], "0 generated and 2 untouched"),
        ([], [], "0 generated and 0 untouched"),
        ([0.1, 0.2, 0.3], [0, 1, 2], "1 generated and 1 untouched of 3"),
        ([0.1, np.nan], [0, 1], "1 scores are not numbers"),
        ([np.inf, 0.1], [0, 1], "1 scores are not numbers"),
    ],
)
def test_what_cannot_be_measured_is_said(scores: Any, labels: Any, says: str) -> None:
    given = np.array(scores, np.float64), np.array(labels, np.int64)
    for metric in (metrics.auc, metrics.eer, metrics.average_precision, metrics.cllr):
        with pytest.raises(FacekitError, match=says):
            metric(*given)


def _naive(metric: Any, scores: Any, labels: Any, cluster: Any, seed: int) -> tuple[float, float]:
    """Clusters drawn one by one, rows put together, the metric called on each draw."""
    members = [np.flatnonzero(cluster == i) for i in range(int(cluster.max()) + 1)]
    random = rng(seed, Purpose.BOOTSTRAP)
    values: list[float] = []
    while len(values) < _DRAWS:
        drawn = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in drawn])
        if 0 < labels[rows].sum() < len(rows):
            values.append(metric(labels[rows], scores[rows]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_RESAMPLES", _DRAWS)


@pytest.mark.usefixtures("few_draws")
def test_the_fast_bootstrap_draws_as_the_naive_one_does() -> None:
    scores, labels = _scores(120)
    # Few clusters, most of one class: some draws lack a class and are drawn again.
    cluster = np.where(labels == 1, np.arange(120) % 3, 3 + np.arange(120) % 9)
    for metric, oracle in (
        (metrics.auc, sk.roc_auc_score),
        (metrics.average_precision, sk.average_precision_score),
        (metrics.brier, sk.brier_score_loss),
    ):
        expected = _naive(oracle, scores, labels, cluster, seed=3)
        assert metrics.interval(metric, scores, labels, cluster, 3) == pytest.approx(expected)
        assert metrics.interval(metric, scores, labels, cluster, 4) != pytest.approx(expected)
    # A function that knows nothing of weights is called for each draw.
    plain = metrics.interval(lambda s, of: metrics.auc(s, of), scores, labels, cluster)
    assert plain == pytest.approx(metrics.interval(metrics.auc, scores, labels, cluster))


@pytest.mark.usefixtures("few_draws")
def test_chunks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = _scores(60)
    cluster = np.arange(60) // 4
    whole = metrics.interval(metrics.auc, scores, labels, cluster)
    monkeypatch.setattr(metrics, "_CHUNK", 700)
    assert metrics.interval(metrics.auc, scores, labels, cluster) == whole


@pytest.mark.usefixtures("few_draws")
def test_copies_of_a_face_do_not_narrow_the_interval() -> None:
    scores, labels = _scores(200)
    alone = metrics.interval(metrics.auc, scores, labels, np.arange(200))
    copies = np.tile(scores, 6), np.tile(labels, 6)
    together = metrics.interval(metrics.auc, *copies, np.tile(np.arange(200), 6))
    assert together == pytest.approx(alone)
    naive = metrics.interval(metrics.auc, *copies, np.arange(1200))
    assert naive[1] - naive[0] < 0.6 * (alone[1] - alone[0])


@pytest.mark.usefixtures("few_draws")
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = norm.cdf(1.5 / 2**0.5)
    held = 0
    for seed in range(60):
        scores, labels = _scores(150, seed=seed)
        low, high = metrics.interval(metrics.auc, scores, labels, np.arange(150), seed)
        held += low <= truth <= high
    # 57 of 60 on average; fewer than 50 would happen less than once in 500 times.
    assert held >= 50


def test_one_class_can_have_an_interval_too() -> None:
    share = Metric(lambda scores, _, weights: weights @ scores / weights.sum(axis=1))
    scores = np.repeat([0.0, 1.0], [80, 20])
    low, high = metrics.interval(share, scores, np.zeros(100, np.int64), np.arange(100))
    assert (low, high) == pytest.approx((0.12, 0.28), abs=0.02)  # 0.2 ± 1.96 · 0.04


def test_a_thousand_draws_of_five_thousand_rows_take_little_time() -> None:
    scores, labels = _scores(5000)
    cluster = np.random.default_rng(1).integers(0, 500, 5000)
    began = time.process_time()
    metrics.interval(metrics.auc, scores, labels, cluster)
    assert time.process_time() - began < 2


@pytest.mark.usefixtures("few_draws")
def test_a_summary_has_every_figure_with_its_interval() -> None:
    scores, labels = _scores(300)
    figures = metrics.summary(scores, labels, np.arange(300) // 3, "track")
    assert [figure.name for figure in figures] == [f"track.{name}" for name in METRICS]
    for figure in figures:
        assert figure.low is not None and figure.high is not None
        assert figure.low <= figure.value <= figure.high or figure.name == "track.ece"
    assert {figure.unit for figure in figures} == {"", "bits"}
