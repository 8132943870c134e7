"""The BCH code against galois, whose answers stand in ``bch_by_galois.json``.

galois compiles itself for half a minute; ``pip install galois && python tests/test_bch.py`` asks it
anew.
"""

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facekit.watermark import bch

ANSWERS = Path(__file__).with_name("bch_by_galois.json")
GALOIS: dict[str, Any] = {"decoded": []}
if ANSWERS.exists():
    GALOIS = json.loads(ANSWERS.read_text())
WORDS = st.integers(0, 2**64 - 1).map(lambda number: bch.encode(bits(number)))
# From ties and zeros to sizes that no float32 sum could hold.
SOFT = st.one_of(
    arrays(np.float32, 127, elements=st.floats(-4, 4, width=32)),
    arrays(np.float64, 127, elements=st.sampled_from([-1.0, 0.0, 1.0])),
    arrays(np.float64, 127, elements=st.floats(-1e300, 1e300)),
)


def bits(number: int, width: int = 64) -> bch.Bits:
    return np.array([int(b) for b in f"{number:0{width}b}"], np.uint8)


def signs(code: bch.Bits) -> np.ndarray:
    return 1.0 - 2.0 * code


def is_word(code: bch.Bits) -> bool:
    """Whether galois' generator polynomial divides it."""
    divisor = GALOIS["generator"]
    rest = int("".join(map(str, code)), 2)
    while rest.bit_length() >= divisor.bit_length():
        rest ^= divisor << rest.bit_length() - divisor.bit_length()
    return rest == 0


def noisy(code: bch.Bits, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    return amplitude * signs(code) + rng.standard_normal(127)


# --- bits -----------------------------------------------------------------------------------------


def test_generator_polynomial_is_that_of_galois():
    assert bch.generator() == GALOIS["generator"]


def of_hex(text: str, width: int) -> bch.Bits:
    return bits(int(text, 16), width)


def generator_matrix() -> bch.Bits:
    """(64, 127), galois'."""
    return np.stack([of_hex(row, 127) for row in GALOIS["matrix"]])


@given(st.integers(0, 2**64 - 1))
def test_words_are_those_of_galois(number):
    assert np.array_equal(bch.encode(bits(number)), bits(number) @ generator_matrix() % 2)


@pytest.mark.parametrize("answer", GALOIS["decoded"], ids=lambda answer: str(answer["wrong"]))
def test_decoding_agrees_with_galois(answer):
    """Of words with 0 to 14 wrong bits; of more than ten, galois mostly finds none."""
    message = of_hex(answer["message"], 64)
    received = of_hex(answer["received"], 127)
    assert np.count_nonzero(received != bch.encode(message)) == answer["wrong"]
    found = bch.decode(received)
    if answer["errors"] < 0:
        assert found is None
    else:
        assert found is not None
        assert np.array_equal(found[0], of_hex(answer["decoded"], 64))
        assert found[1] == answer["errors"]
    if answer["wrong"] <= bch.CORRECTABLE:
        assert found is not None and np.array_equal(found[0], message)


@given(arrays(np.uint8, 127, elements=st.integers(0, 1)))
def test_decoded_words_lie_within_ten_bits(received):
    found = bch.decode(received)
    if found is not None:
        word = bch.encode(found[0])
        assert is_word(word)
        assert np.count_nonzero(word != received) == found[1] <= bch.CORRECTABLE


def test_lengths_and_numbers_are_checked():
    with pytest.raises(ValueError, match="64 bits"):
        bch.encode(np.zeros(63, np.uint8))
    with pytest.raises(ValueError, match="127 bits"):
        bch.decode(np.zeros(128, np.uint8))
    with pytest.raises(ValueError, match="127 values"):
        bch.nearest(np.zeros(126))
    with pytest.raises(ValueError, match="finite"):
        bch.nearest(np.full(127, np.nan))
    with pytest.raises(ValueError, match="0 to 4, got 5"):
        bch.nearest(np.zeros(127), order=5)


# --- soft values ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(SOFT, st.integers(0, 4))
def test_nearest_is_a_word_no_worse_than_the_hard_decoders(values, order):
    word = bch.nearest(values, order=order)
    assert is_word(word.code)
    assert np.array_equal(bch.encode(word.message), word.code)
    assert word.corrected == np.count_nonzero(word.code != (values < 0))
    size = float(np.abs(values).max()) or 1.0
    assert word.correlation == pytest.approx(values @ signs(word.code), abs=1e-5 * size)
    hard = bch.decode((values < 0).astype(np.uint8))
    if hard is not None:
        assert word.correlation >= values @ signs(bch.encode(hard[0])) - 1e-5 * size


@settings(deadline=None, max_examples=50)
@given(SOFT)
def test_a_higher_order_never_finds_less(values):
    found = [bch.nearest(values, order=order).correlation for order in range(5)]
    slack = 1e-5 * (float(np.abs(values).max()) or 1.0)  # the words are compared in float32
    assert all(b >= a - slack for a, b in pairwise(found))


@settings(deadline=None, max_examples=50)
@given(WORDS, st.sets(st.integers(0, 126), max_size=10), st.floats(1e-300, 1e300))
def test_ten_wrong_bits_are_corrected_whatever_the_scale(word, wrong, scale):
    values = scale * signs(word)
    values[list(wrong)] *= -1
    found = bch.nearest(values)
    assert np.array_equal(found.code, word)
    assert found.corrected == len(wrong)


@settings(deadline=None, max_examples=50)
@given(WORDS, st.integers(0, 2**32))
def test_noise_is_treated_alike_around_every_word(word, seed):
    # The code is linear: turning the signs by a word turns the answer by it.
    values = np.random.default_rng(seed).standard_normal(127)
    plain, turned = bch.nearest(values), bch.nearest(values * signs(word))
    assert np.array_equal(turned.code, plain.code ^ word)
    assert turned.correlation == pytest.approx(plain.correlation)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**60 - 1), SOFT)
def test_with_four_unknown_bits_the_best_word_is_found(known, values):
    """60 bits are certain, so 16 words remain: all are compared, and order 4 reaches each."""
    candidates = [bch.encode(bits(known << 4 | rest)) for rest in range(16)]
    values = values.astype(np.float64) / (float(np.abs(values).max()) or 1.0)
    values[:60] = 1e3 * signs(candidates[0][:60])
    best = max(values @ signs(code) for code in candidates)
    assert bch.nearest(values).correlation == pytest.approx(best, abs=1e-2)  # beside 60,000


@pytest.mark.parametrize("amplitude", [0.0, 0.6, 1.0])
def test_with_ten_unknown_bits_the_best_word_is_found(amplitude):
    """Exhaustive maximum likelihood over the 1,024 words that remain, down to pure noise."""
    rng = np.random.default_rng(11)
    words = np.array([bch.encode(bits(rest)) for rest in range(1024)])
    for sent in rng.integers(0, 1024, 40):
        values = noisy(words[sent], amplitude, rng)
        values[:54] = 30.0
        best = words[(signs(words) @ values).argmax()]
        assert np.array_equal(bch.nearest(values).code, best)


def ranked_noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Soft values, and their places from the surest to the least sure."""
    values = np.random.default_rng(seed).standard_normal(127)
    return values, np.argsort(-np.abs(values))


@pytest.mark.parametrize("order", [1, 2])
def test_search_is_the_best_of_all_flips_of_the_basis(order):
    """Against the method written out word by word, with the basis found by galois."""
    values, ranking = ranked_noise(order)
    solved = np.stack([of_hex(row, 127) for row in GALOIS["solved"][str(order)]])
    basis = [int(row.argmax()) for row in solved]
    ranked = values[ranking]
    best = -np.inf
    for flips in product(range(-1, 64), repeat=order):
        message = (ranked[basis] < 0).astype(np.uint8)
        for flip in set(flips) - {-1}:
            message[flip] ^= 1
        best = max(best, float(ranked @ signs(message @ solved % 2)))
    assert bch.nearest(values, order=order).correlation == pytest.approx(best)


def test_soft_values_gain_three_decibels():
    """At 1.35 standard deviations most frames are lost to bits, next to none to soft values."""
    rng = np.random.default_rng(3)
    hard = soft = 0
    for number in rng.integers(0, 2**63, 200):
        word = bch.encode(bits(int(number)))
        values = noisy(word, 1.35, rng)
        decoded = bch.decode((values < 0).astype(np.uint8))
        hard += decoded is not None and np.array_equal(decoded[0], word[:64])
        soft += np.array_equal(bch.nearest(values).code, word)
    assert hard < 120
    assert soft >= 199


# --- galois' answers ------------------------------------------------------------------------------


def ask_galois() -> None:
    """Write ``bch_by_galois.json``."""
    import galois

    code = galois.BCH(127, 64)
    matrix = np.asarray(code.G)
    rng = np.random.default_rng(64)

    def as_hex(values: Any) -> str:
        return f"{int(''.join(map(str, np.asarray(values).tolist())), 2):x}"

    def reduced(seed: int) -> list[str]:
        ranking = ranked_noise(seed)[1]
        return [as_hex(row) for row in galois.GF2(matrix[:, ranking]).row_reduce()]

    decoded = []
    for wrong in [*range(15), *rng.integers(0, 15, 45).tolist()]:
        message = rng.integers(0, 2, 64).astype(np.uint8)
        received = np.asarray(code.encode(galois.GF2(message))).astype(np.uint8)
        received[rng.choice(127, wrong, replace=False)] ^= 1
        found, errors = code.decode(galois.GF2(received), errors=True)
        row = {"wrong": wrong, "message": as_hex(message), "received": as_hex(received)}
        decoded.append({**row, "decoded": as_hex(found), "errors": int(errors)})
    answers = {
        "galois": galois.__version__,
        "generator": int(code.generator_poly),
        "matrix": [as_hex(row) for row in matrix],
        "solved": {str(seed): reduced(seed) for seed in (1, 2)},
        "decoded": decoded,
    }
    ANSWERS.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    ask_galois()
