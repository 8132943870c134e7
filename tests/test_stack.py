"""Stacking: weights against scikit-learn's, their sign, and what does not fit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from detectors import stack
from detectors.calibrate import Labels, Scores
from detectors.metrics import auc
from detectors.stack import Stack, fit_stack
from facekit.core.errors import FacekitError
from facekit.core.seed import rng


def members(seed: int, faces: int, quality: list[float]) -> tuple[Scores, Labels, list[str]]:
    """Logits of members that are so good, each with noise of its own; four faces a person."""
    random = rng(seed)
    labels = random.permutation(np.resize([0, 1], faces))
    logits = random.normal(size=(faces, len(quality))) + np.outer(labels, quality)
    return logits, labels, [f"person {i // 4}" for i in range(faces)]


def test_the_fit_is_scikit_learns() -> None:
    logits, labels, _ = members(1, 300, [2.0, 0.5, -0.3])
    for penalty in (0.1, 10.0):
        weights, bias = stack._fit(logits, labels, np.ones(len(labels)), penalty, free=True)
        peer = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(logits, labels)
        np.testing.assert_allclose(weights, peer.coef_[0], atol=1e-5)
        assert bias == pytest.approx(peer.intercept_[0], abs=1e-5)
        bounded, _ = stack._fit(logits, labels, np.ones(len(labels)), penalty, free=False)
        assert bounded[2] == 0 and bounded[0] > bounded[1] > 0
        # What is left are the weights without that member.
        rest, _ = stack._fit(logits[:, :2], labels, np.ones(len(labels)), penalty, free=True)
        np.testing.assert_allclose(bounded[:2], rest, atol=1e-4)


def test_a_face_that_counts_twice_is_as_good_as_two() -> None:
    logits, labels, people = members(3, 200, [1.0, 2.0])
    counts = np.where(np.arange(200) < 80, 2.0, 1.0)
    twice = np.concatenate([np.arange(200), np.arange(80)])
    weights, bias = stack._fit(logits, labels, counts, 1.0, free=True)
    doubled = stack._fit(logits[twice], labels[twice], np.ones(280), 1.0, free=True)
    assert weights == pytest.approx(doubled[0], abs=1e-4) and bias == pytest.approx(
        doubled[1], abs=1e-4
    )
    alike = fit_stack(logits, labels, people)
    assert fit_stack(logits, labels, people, np.full(200, 1.0)) == alike
    assert fit_stack(logits, labels, people, counts) != alike


def test_the_better_member_weighs_more() -> None:
    logits, labels, people = members(2, 1200, [3.0, 1.0, 0.0])
    fitted = fit_stack(logits, labels, people)
    assert fitted.weights[0] > fitted.weights[1] > fitted.weights[2] >= 0
    # Two equally wide normal distributions: the best weights are the distances themselves.
    np.testing.assert_allclose(fitted.weights, [3.0, 1.0, 0.0], atol=0.4)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([12, 40, 90]),
    st.lists(st.floats(-1, 4), min_size=1, max_size=4),
    st.sampled_from([1e-5, 1.0, 1e5]),
)
def test_units_do_not_matter(seed: int, faces: int, quality: list[float], unit: float) -> None:
    logits, labels, people = members(seed, faces, quality)
    groups = np.unique(people, return_inverse=True)[1]
    fitted = stack._try(logits, labels, groups, np.ones(len(labels)))
    scaled = stack._try(logits * unit + unit, labels, groups, np.ones(len(labels)))
    np.testing.assert_allclose(
        (logits * unit + unit) @ scaled.weights + scaled.bias,
        logits @ fitted.weights + fitted.bias,
        atol=1e-3,
        rtol=1e-3,
    )


def test_who_finds_nothing_does_not_outvote_who_does() -> None:
    """Each of two members knows one kind of forgery, and is sure of nothing about the other's."""
    random = rng(6)
    kind = np.repeat([0, 1, 2], [600, 300, 300])  # untouched, the one's, the other's
    logits = random.normal(-1, 0.7, (1200, 2))
    logits[kind == 1, 0] += 4
    logits[kind == 2, 1] += 4
    logits[kind == 1, 1] -= 4  # the other finds it cleaner than any photo
    labels = (kind > 0).astype(np.int64)
    fitted = fit_stack(logits, labels, [f"person {i // 4}" for i in range(1200)])
    assert fitted.evidence
    scores = fitted.logits(logits)
    assert auc(scores, labels) > 0.99
    weights, bias = stack._fit(logits, labels, np.ones(len(labels)), 1.0, free=False)
    assert auc(scores, labels) > auc(logits @ weights + bias, labels) + 0.005
    said = np.logaddexp(0, logits) @ fitted.weights + fitted.bias
    np.testing.assert_allclose(scores, said, rtol=1e-12)


def test_negative_weights_must_be_earned() -> None:
    logits, labels, people = members(3, 800, [2.0, 2.0, -0.02])
    assert min(fit_stack(logits, labels, people).weights) >= 0
    # A member that sees nothing but another's error: taking it away is worth the freedom.
    random = rng(4)
    error = random.normal(0, 4, 800)
    spoilt = np.stack([labels + error, error + random.normal(0, 0.1, 800)], axis=1)
    fitted = fit_stack(spoilt, labels, people)
    assert fitted.weights[0] > 0 > fitted.weights[1]


def test_people_stay_together() -> None:
    """One member knows every person by heart; on other people it is worth nothing."""
    random = rng(5)
    people = [f"person {i // 20}" for i in range(400)]
    labels = np.resize([0, 1], 400).astype(np.int64)
    good = random.normal(size=400) + 1.5 * labels
    # Its errors are a person's own: 20 frames are one fact, not 20.
    by_heart = np.repeat(random.normal(0, 3, 20), 20) + 0.3 * labels
    together = fit_stack(np.stack([good, by_heart], axis=1), labels, people)
    assert together.weights[0] > 5 * abs(together.weights[1])


def test_few_people() -> None:
    logits, labels, _ = members(6, 40, [2.0, -1.0])
    # One person only: nothing to choose by.
    fitted = fit_stack(logits, labels, ["somebody"] * 40)
    assert fitted.weights[0] > 0 == fitted.weights[1]
    two = ["somebody" if label else "somebody else" for label in labels]
    assert fit_stack(logits, labels, two) == fitted
    # A member without an opinion.
    flat = np.column_stack([logits[:, 0], np.full(40, 7.0)])
    assert np.isfinite(fit_stack(flat, labels, ["somebody"] * 40).logits(flat)).all()


def test_a_face_scores_the_same_alone() -> None:
    logits, labels, people = members(7, 120, [2.0, 1.0, 0.5])
    fitted = fit_stack(logits, labels, people)
    together = fitted.logits(logits)
    apart = np.concatenate([fitted.logits(logits[i : i + 1]) for i in range(len(logits))])
    assert np.array_equal(together, apart)
    assert together.dtype == np.float64 and fitted.logits(logits[:0]).shape == (0,)
    said = stack._said(logits, fitted.evidence)
    np.testing.assert_allclose(together, said @ np.array(fitted.weights) + fitted.bias)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        fitted.logits(logits[:, :2])


def test_state() -> None:
    fitted = fit_stack(*members(8, 60, [2.0, 1.0]))
    assert Stack.from_state(json.loads(json.dumps(fitted.to_state()))) == fitted
    for state in (
        {},
        {"weights": 3, "bias": 0.0},
        {"weights": [], "bias": 0.0},
        {"weights": [1.0, math.nan], "bias": 0.0},
        {"weights": ["x"], "bias": 0.0},
    ):
        with pytest.raises(FacekitError, match="stack is damaged"):
            Stack.from_state(state)


def test_bad_calls() -> None:
    logits, labels, people = members(9, 20, [1.0, 1.0])
    unknown = logits.copy()
    unknown[3, 1] = np.nan
    for arguments, message in (
        ((unknown, labels, people), "not numbers"),
        ((logits, np.zeros(20, np.int64), people), "both classes"),
        ((logits, labels + 1, people), "labelled 0 and 1"),
        ((logits[:, 0], labels, people), r"logits \(faces, members\)"),
        ((logits[:, :0], labels, people), r"logits \(faces, members\)"),
        ((logits, labels[:9], people), "20 faces, 9 labels"),
        ((logits, labels, people[:9]), "9 people"),
    ):
        with pytest.raises(FacekitError, match=message):
            fit_stack(*arguments)
