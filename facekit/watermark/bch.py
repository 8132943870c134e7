"""The binary BCH code (127, 64), which corrects any 10 errors, in numpy.

Bose and Ray-Chaudhuri 1960, Hocquenghem 1959; decoding by Berlekamp and Massey (Massey 1969) and
Chien's search. Bits are uint8 arrays of 0 and 1; the word is systematic, the message first, and its
first bit is the coefficient of the highest power, as in MATLAB and ``galois``.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]

LENGTH = 127
MESSAGE = 64
CORRECTABLE = 10

_PRIMITIVE = 0b10001001
"""x^7 + x^3 + 1, which makes the field of 128 elements."""


def _powers() -> tuple[list[int], list[int]]:
    power, log = [], [0] * 128
    element = 1
    for exponent in range(LENGTH):
        power.append(element)
        log[element] = exponent
        element <<= 1
        if element & 128:
            element ^= _PRIMITIVE
    return power, log


_POWER, _LOG = _powers()


def _product(a: int, b: int) -> int:
    return _POWER[(_LOG[a] + _LOG[b]) % LENGTH] if a and b else 0


def _quotient(a: int, b: int) -> int:
    return _POWER[(_LOG[a] - _LOG[b]) % LENGTH] if a else 0


@lru_cache(maxsize=1)
def generator() -> int:
    """The generator polynomial of degree 63; bit i is the coefficient of x^i."""
    roots = {(j << i) % LENGTH for j in range(1, 2 * CORRECTABLE + 1) for i in range(7)}
    coefficients = [1]
    for root in roots:  # times (x + a^root); coefficients from the lowest power up
        shifted = [0, *coefficients]
        scaled = [_product(c, _POWER[root]) for c in coefficients] + [0]
        coefficients = [a ^ b for a, b in zip(shifted, scaled, strict=True)]
    return sum(c << i for i, c in enumerate(coefficients))


def encode(message: Bits) -> Bits:
    """The word of 127 bits for a message of 64.

    Raises:
        ValueError: if the message is not 64 bits.
    """
    if message.shape != (MESSAGE,):
        raise ValueError(f"a message is {MESSAGE} bits, got shape {message.shape}")
    checks = LENGTH - MESSAGE
    remainder = int("".join(map(str, message.tolist())), 2) << checks
    for shift in range(MESSAGE - 1, -1, -1):
        if remainder >> (shift + checks) & 1:
            remainder ^= generator() << shift
    parity = [remainder >> i & 1 for i in range(checks - 1, -1, -1)]
    return np.concatenate([message, np.array(parity, np.uint8)])


def decode(word: Bits) -> tuple[Bits, int] | None:
    """The message nearest to a word of 127 bits, and how many bits were wrong.

    Returns:
        (message of 64 bits, errors corrected), or None if no code word lies within 10 bits.

    Raises:
        ValueError: if the word is not 127 bits.
    """
    if word.shape != (LENGTH,):
        raise ValueError(f"a word is {LENGTH} bits, got shape {word.shape}")
    syndromes = _syndromes(word)
    if not any(syndromes):
        return word[:MESSAGE].copy(), 0
    locator = _error_locator(syndromes)
    errors = len(locator) - 1
    if errors > CORRECTABLE:
        return None
    places = _roots(locator)
    if len(places) != errors:
        return None
    fixed = word.copy()
    fixed[LENGTH - 1 - np.array(places)] ^= 1
    # A locator with the right number of roots could still be of no code word: check, don't trust.
    return None if any(_syndromes(fixed)) else (fixed[:MESSAGE], errors)


@lru_cache(maxsize=1)
def _syndrome_table() -> NDArray[np.uint8]:
    """(20, 127): the power of a^j, j = 1..20, that each bit of the word stands for."""
    exponents = np.arange(LENGTH - 1, -1, -1)
    orders = np.arange(1, 2 * CORRECTABLE + 1)
    return np.array(_POWER, np.uint8)[np.outer(orders, exponents) % LENGTH]


def _syndromes(word: Bits) -> list[int]:
    sums = np.bitwise_xor.reduce(_syndrome_table() * word, axis=1)
    return [int(s) for s in sums]


def _error_locator(syndromes: list[int]) -> list[int]:
    """Berlekamp and Massey: the shortest polynomial that generates the syndromes, lowest first."""
    current, previous = [1], [1]
    errors, gap, last = 0, 1, 1
    for step, syndrome in enumerate(syndromes):
        discrepancy = syndrome
        for i in range(1, min(errors, len(current) - 1) + 1):
            discrepancy ^= _product(current[i], syndromes[step - i])
        if discrepancy == 0:
            gap += 1
            continue
        factor = _quotient(discrepancy, last)
        change = [0] * gap + [_product(factor, c) for c in previous]
        width = max(len(current), len(change))
        padded = current + [0] * (width - len(current))
        change += [0] * (width - len(change))
        updated = [a ^ b for a, b in zip(padded, change, strict=True)]
        if 2 * errors <= step:
            previous, last, gap = current, discrepancy, 1
            errors = step + 1 - errors
        else:
            gap += 1
        current = updated
    while len(current) > 1 and current[-1] == 0:
        current.pop()
    return current


def _roots(locator: list[int]) -> list[int]:
    """Chien's search: the powers p whose inverse a^-p is a root, so where the errors are."""
    places = []
    for place in range(LENGTH):
        value = 0
        for order, coefficient in enumerate(locator):
            if coefficient:
                value ^= _POWER[(_LOG[coefficient] - place * order) % LENGTH]
        if value == 0:
            places.append(place)
    return places
