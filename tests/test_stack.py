"""Stacking: weights against scikit-learn's, their sign, and what does not fit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
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


def ones(labels: Labels) -> Scores:
    return np.ones(len(labels))


def test_the_fit_is_scikit_learns() -> None:
    logits, labels, _ = members(1, 300, [2.0, 0.5, -0.3])
    for penalty in (0.1, 10.0):
        weights, biases = stack._fit(logits, labels, ones(labels), penalty)
        assert weights[0, 2] == 0 and weights[0, 0] > weights[0, 1] > 0
        # What is left are the weights without that member.
        peer = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
        peer.fit(logits[:, :2], labels)
        np.testing.assert_allclose(weights[0, :2], peer.coef_[0], atol=1e-4)
        assert biases[0] == pytest.approx(peer.intercept_[0], abs=1e-4)


def test_kinds_are_scikit_learns_classes() -> None:
    """Its penalty lies on all classes' weights; without one both fit the same."""
    random = rng(2)
    classes = random.integers(0, 3, 900)
    logits = random.normal(size=(900, 2)) + np.eye(3)[classes][:, 1:] + 0.7 * (classes > 0)[:, None]
    weights, biases = stack._fit(logits, classes, ones(classes), 1e-9)
    peer = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000).fit(logits, classes)
    np.testing.assert_allclose(weights, peer.coef_[1:] - peer.coef_[0], atol=1e-3)
    np.testing.assert_allclose(biases, peer.intercept_[1:] - peer.intercept_[0], atol=1e-3)
    fitted = Stack(tuple(map(tuple, weights.tolist())), tuple(biases.tolist()))
    untouched = peer.predict_proba(logits)[:, 0]
    np.testing.assert_allclose(expit(fitted.logits(logits)), 1 - untouched, atol=1e-4)


def test_a_face_that_counts_twice_is_as_good_as_two() -> None:
    logits, labels, _ = members(3, 200, [1.0, 2.0])
    counts = np.where(np.arange(200) < 80, 2.0, 1.0)
    twice = np.concatenate([np.arange(200), np.arange(80)])
    weights, biases = stack._fit(logits, labels, counts, 1.0)
    doubled = stack._fit(logits[twice], labels[twice], np.ones(280), 1.0)
    np.testing.assert_allclose(weights, doubled[0], atol=1e-4)
    np.testing.assert_allclose(biases, doubled[1], atol=1e-4)


def test_the_better_member_weighs_more() -> None:
    logits, labels, people = members(2, 1200, [3.0, 1.0, 0.0])
    (weights,) = fit_stack(logits, labels, people).weights
    assert weights[0] > weights[1] > weights[2] >= 0
    # Two equally wide normal distributions: the best weights are the distances themselves.
    np.testing.assert_allclose(weights, [3.0, 1.0, 0.0], atol=0.4)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([12, 40, 90]),
    st.lists(st.floats(-1, 4), min_size=1, max_size=4),
    st.sampled_from([1e-5, 1.0, 1e5]),
)
def test_units_do_not_matter(seed: int, faces: int, quality: list[float], unit: float) -> None:
    logits, labels, people = members(seed, faces, quality)
    fitted = fit_stack(logits, labels, people)
    scaled = fit_stack(logits * unit + unit, labels, people)
    np.testing.assert_allclose(
        scaled.logits(logits * unit + unit), fitted.logits(logits), atol=1e-3, rtol=1e-3
    )


def test_who_finds_nothing_does_not_outvote_who_does() -> None:
    """Each of two members knows one kind of forgery, and is sure of nothing about the other's."""
    random = rng(6)
    kind = np.repeat([0, 1, 2], [600, 500, 100])  # untouched, the one's, the other's
    logits = random.normal(-1, 0.7, (1200, 2))
    logits[kind == 1, 0] += 4
    logits[kind == 2, 1] += 4
    logits[kind == 1, 1] -= 4  # the other finds it cleaner than any photo
    labels = (kind > 0).astype(np.int64)
    people = [f"person {i // 4}" for i in range(1200)]
    scores = fit_stack(logits, labels, people, [f"kind {one}" for one in kind]).logits(logits)
    assert auc(scores, labels) > 0.99
    of_one_kind = fit_stack(logits, labels, people).logits(logits)
    assert auc(scores, labels) > auc(of_one_kind, labels) + 0.005


def test_parts_say_who_spoke() -> None:
    both = Stack(((1.0, 0.0), (0.0, 2.0)), (0.0, 0.0))
    first, second = both.parts(np.array([[9.0, -3.0], [-3.0, 9.0]]))
    assert first[0] == pytest.approx(9, abs=1e-3) and abs(first[1]) < 1e-3
    assert second[1] == pytest.approx(18, abs=1e-3) and abs(second[0]) < 1e-3
    # Of one kind they are the terms of the sum.
    one = Stack(((2.0, 0.5),), (-1.0,))
    logits = rng(3).normal(size=(7, 2))
    np.testing.assert_allclose(one.parts(logits).sum(axis=1) - 1, one.logits(logits))


def test_people_stay_together() -> None:
    """One member knows every person by heart; on other people it is worth nothing."""
    random = rng(5)
    people = [f"person {i // 20}" for i in range(400)]
    labels = np.resize([0, 1], 400).astype(np.int64)
    good = random.normal(size=400) + 1.5 * labels
    # Its errors are a person's own: 20 frames are one fact, not 20.
    by_heart = np.repeat(random.normal(0, 3, 20), 20) + 0.3 * labels
    together = fit_stack(np.stack([good, by_heart], axis=1), labels, people)
    assert together.weights[0][0] > 5 * together.weights[0][1]


def test_few_people() -> None:
    logits, labels, _ = members(6, 40, [2.0, -1.0])
    # One person only: nothing to choose by.
    fitted = fit_stack(logits, labels, ["somebody"] * 40)
    assert fitted.weights[0][0] > 0 == fitted.weights[0][1]
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
    (weights,), (bias,) = fitted.weights, fitted.biases
    np.testing.assert_allclose(together, logits @ np.array(weights) + bias)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        fitted.logits(logits[:, :2])


def test_state() -> None:
    logits, labels, people = members(8, 60, [2.0, 1.0])
    fitted = fit_stack(logits, labels, people, ["one", "one", "other"] * 20)
    assert len(fitted.weights) == 2
    assert Stack.from_state(json.loads(json.dumps(fitted.to_state()))) == fitted
    for state in (
        {},
        {"weights": 3, "biases": [0.0]},
        {"weights": [], "biases": []},
        {"weights": [[]], "biases": [0.0]},
        {"weights": [[1.0], [1.0, 2.0]], "biases": [0.0, 0.0]},
        {"weights": [[1.0]], "biases": [0.0, 0.0]},
        {"weights": [[1.0, math.nan]], "biases": [0.0]},
        {"weights": [["x"]], "biases": [0.0]},
        {"weights": [1.0, 2.0], "bias": 0.0, "evidence": True},  # of an earlier version
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
