"""From phonemes and their times to what lips, jaw and tongue do, in ARKit's face units.

Each phoneme stands for a viseme: targets for a few face units. A unit's path is the mean of the
targets around a moment, weighted by how far each phoneme dominates it there (Löfqvist 1990; Cohen
& Massaro, "Modeling coarticulation in synthetic visual speech", 1993). What a viseme does not
name, it leaves to its neighbours: the lips are already round in the "t" of "two".
"""

import ctypes
import ctypes.util
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from facekit.core.errors import FacekitError, did_you_mean
from facekit.studio.basis import Array

Timing = Sequence[tuple[str, float, float]]
Alphabet = Literal["arpabet", "ipa", "espeak"]

LONGEST = 600.0
"""In seconds: no clip is longer."""


@dataclass(frozen=True)
class Viseme:
    """What a group of phonemes looks like.

    Attributes:
        targets: face unit (a sided one without its side) → coefficient. ``closed`` is the share
            of the jaw's opening that the lips close again.
        strength: how much it dominates its neighbours; consonants' jaws yield to vowels.
        firm: lips that must meet: dominance stays full through the middle of the phoneme.
    """

    targets: dict[str, float]
    strength: float = 1.0
    firm: bool = False


VISEMES: dict[str, Viseme] = {
    "silence": Viseme(
        {"jawOpen": 0.01, "closed": 0.0, "mouthFunnel": 0.0, "mouthPucker": 0.0}, 0.5
    ),
    "PP": Viseme(
        {"jawOpen": 0.07, "closed": 1.0, "mouthPress": 0.22, "mouthRoll": 0.16}, 1.4, True
    ),
    "FF": Viseme(
        {"jawOpen": 0.07, "mouthRollLower": 0.5, "mouthUpperUp": 0.2, "mouthShrugLower": 0.2},
        1.3,
        True,
    ),
    "TH": Viseme({"jawOpen": 0.13, "tongueOut": 0.25, "mouthLowerDown": 0.22, "mouthUpperUp": 0.1}),
    "DD": Viseme({"jawOpen": 0.11, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1}, 0.6),
    "kk": Viseme({"jawOpen": 0.16, "mouthLowerDown": 0.12}, 0.35),
    "hh": Viseme({"jawOpen": 0.18}, 0.12),
    "CH": Viseme(
        {"jawOpen": 0.09, "mouthFunnel": 0.5, "mouthPucker": 0.12, "mouthUpperUp": 0.1}, 0.9
    ),
    "SS": Viseme(
        {"jawOpen": 0.05, "mouthStretch": 0.22, "mouthLowerDown": 0.28, "mouthUpperUp": 0.14}, 0.9
    ),
    "RR": Viseme({"jawOpen": 0.11, "mouthFunnel": 0.3, "mouthPucker": 0.14}, 0.6),
    "ww": Viseme({"jawOpen": 0.07, "mouthPucker": 0.7, "mouthFunnel": 0.2}, 1.1),
    "aa": Viseme(
        {"jawOpen": 0.52, "mouthLowerDown": 0.28, "mouthUpperUp": 0.16, "mouthFunnel": 0.0}
    ),
    "ae": Viseme(
        {"jawOpen": 0.44, "mouthStretch": 0.2, "mouthLowerDown": 0.32, "mouthUpperUp": 0.2}
    ),
    "eh": Viseme(
        {"jawOpen": 0.3, "mouthStretch": 0.2, "mouthLowerDown": 0.28, "mouthUpperUp": 0.16}
    ),
    "ih": Viseme(
        {"jawOpen": 0.19, "mouthStretch": 0.24, "mouthLowerDown": 0.24, "mouthUpperUp": 0.12}
    ),
    "ee": Viseme(
        {"jawOpen": 0.13, "mouthStretch": 0.38, "mouthLowerDown": 0.28, "mouthSmile": 0.1}
    ),
    "uh": Viseme({"jawOpen": 0.26, "mouthLowerDown": 0.16, "mouthUpperUp": 0.08}, 0.7),
    "oh": Viseme({"jawOpen": 0.33, "mouthFunnel": 0.5, "mouthPucker": 0.22}),
    "aw": Viseme({"jawOpen": 0.44, "mouthFunnel": 0.4, "mouthPucker": 0.06}),
    "oo": Viseme({"jawOpen": 0.13, "mouthPucker": 0.62, "mouthFunnel": 0.35}),
    "ue": Viseme({"jawOpen": 0.1, "mouthPucker": 0.68, "mouthFunnel": 0.25}),
}
"""Grouped as MPEG-4's visemes (ISO/IEC 14496-2), with more vowels."""

_UNITS = sorted({unit for viseme in VISEMES.values() for unit in viseme.targets})
_SIDED = {"mouthPress", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthSmile"}

# In seconds: how fast a unit's dominance falls off before and after its phoneme. Rounding is
# anticipated longest; closures are brief.
_REACH = {"mouthPucker": (0.10, 0.07), "mouthFunnel": (0.10, 0.07), "jawOpen": (0.045, 0.05)}
_BRIEF = {"closed", "mouthPress", "mouthRoll", "mouthRollLower", "mouthShrugLower", "tongueOut"}
_IS_BRIEF = np.array([unit in _BRIEF for unit in _UNITS])
_CLOSED = _UNITS.index("closed")
_BEFORE = np.array([0.013 if u in _BRIEF else _REACH.get(u, (0.05, 0.05))[0] for u in _UNITS])
_AFTER = np.array([0.013 if u in _BRIEF else _REACH.get(u, (0.05, 0.05))[1] for u in _UNITS])


def _table(rows: str) -> dict[str, str]:
    pairs = (row.split(":", 1) for row in rows.strip().splitlines())
    return {symbol: name.strip() for name, symbols in pairs for symbol in symbols.split()}


_ARPABET = _table("""
PP: P B M EM
FF: F V
TH: TH DH
DD: T D N L DX NX EN EL
kk: K G NG ENG
hh: HH H Q
CH: CH JH SH ZH
SS: S Z
RR: R ER AXR
ww: W WH
aa: AA
ae: AE AY AW
eh: EH EY
ih: IH IX Y
ee: IY
uh: AH AX
oh: OW
aw: AO OY
oo: UH UW
ue: UX
""")
_IPA = _table("""
PP: p b m ɱ ɓ ɸ β
FF: f v ʋ ⱱ
TH: θ ð
DD: t d n l ɾ ɗ ɫ ɬ ɮ ʈ ɖ ɳ ɭ r ǀ ǃ ɺ
kk: k ɡ g ŋ x ɣ q ɢ χ ɴ ʁ ʀ c ɟ ɲ ç ʝ ʎ ɠ ʛ ɰ ɧ
hh: h ɦ ʔ ħ ʕ ʜ ʡ ʢ
CH: ʃ ʒ ʂ ʐ ɕ ʑ ʧ ʤ ʨ ʥ
SS: s z ʦ ʣ
RR: ɹ ɻ ɚ ɝ ɽ
ww: w ʍ ɥ
aa: a ɑ ä ɐ
ae: æ ɶ
eh: ɛ e œ
ih: ɪ ɨ j ɘ
ee: i
uh: ə ʌ ɜ ɤ ɞ ᵊ
oh: o ɵ
aw: ɔ ɒ
oo: u ʊ ʉ ɯ
ue: y ʏ ø
""")
_ESPEAK = _table("""
PP: p b m
FF: f v
TH: T D
DD: t d n l L * *r
kk: k g N x Q C c J n^ l^ q X
hh: h H ?
CH: S Z
SS: s z
RR: R r r- 3 A~r
ww: w w#
aa: a A a#
ae: & W
eh: E e
ih: I j i2 I2 I#
ee: i
uh: @ V @2 @5 @L V"
oh: o o2 8
aw: O 0
oo: u U u" M U"
ue: y Y
""")
_QUIET = {"", "_", "_:", "sil", "sp", "spn", "pau", "h#", "#", "|", ";", "SIL", "SP", "SPN", "PAU"}
PHONEMES: dict[str, dict[str, str]] = {"arpabet": _ARPABET, "ipa": _IPA, "espeak": _ESPEAK}
"""Alphabet → phoneme → name of its viseme; ARPAbet is CMU's and TIMIT's."""

_GLIDES = {
    "AY": ("aa", "ih"),
    "AW": ("aa", "oo"),
    "OY": ("aw", "ih"),
    "EY": ("eh", "ih"),
    "OW": ("oh", "oo"),
}
_MARKS = "ˈˌːˑ.'’ʼ͜͡‿ʰʲʷˠˤⁿˡ˞̩"
_ESPEAK_MARKS = "',%:;=|~`!."


def _spelt(symbol: str, alphabet: str) -> tuple[str, ...] | None:
    """The visemes of one phoneme in turn, or None if the alphabet has no such phoneme."""
    if symbol.strip() in _QUIET:
        return ("silence",)
    symbol = symbol.strip()
    table = PHONEMES[alphabet]
    if alphabet == "arpabet":
        bare = symbol.rstrip("012")
        return _GLIDES.get(bare) or ((table[bare],) if bare in table else None)
    if alphabet == "ipa":
        decomposed = unicodedata.normalize("NFD", symbol.replace("ä", "a").replace("ç", "c"))
        kept = [c for c in decomposed if c not in _MARKS and not unicodedata.combining(c)]
        return _in_turn("".join(kept), table)
    return _in_turn(symbol.translate(str.maketrans("", "", _ESPEAK_MARKS)), table)


def _in_turn(text: str, table: dict[str, str]) -> tuple[str, ...] | None:
    """The visemes of a string of symbols (a diphthong, an affricate), longest match first."""
    visemes: list[str] = []
    while text:
        size = next((n for n in (3, 2, 1) if text[:n] in table), None)
        if size is None:
            return None
        visemes.append(table[text[:size]])
        text = text[size:]
    return tuple(visemes) if _is_one(visemes) else None


_VOWELS = {"aa", "ae", "eh", "ih", "ee", "uh", "oh", "aw", "oo", "ue"}
_STOPS, _HISSES, _LIQUIDS = {"PP", "DD", "kk"}, {"FF", "TH", "SS", "CH", "RR"}, {"RR", "DD", "SS"}


def _is_one(visemes: list[str]) -> bool:
    """One sound, a diphthong (at times with an r or l, or a glide before it), or an affricate."""
    if len(visemes) == 1:
        return True
    if len(visemes) == 2 and visemes[0] in _STOPS:
        return visemes[1] in _HISSES
    ends = visemes[1:-1] if visemes[-1] in _LIQUIDS else visemes[1:]
    return len(visemes) in (2, 3) and visemes[0] in _VOWELS and set(ends) <= _VOWELS


def read(timing: Timing, alphabet: Alphabet | None = None) -> list[tuple[str, float, float]]:
    """Check a phoneme timing and name the viseme of each moment: (viseme, start, end) in seconds.

    Args:
        timing: (phoneme, start, end) in order of time. Phonemes are IPA, ARPAbet ("AA1") or
            espeak's mnemonics ("oU"); "", "_", "sil", "sp" and "pau" are silence, as are gaps.
        alphabet: which of the three; None: ARPAbet if every phoneme is one of it, else IPA, else
            espeak's mnemonics.

    Raises:
        FacekitError: if it is empty, a phoneme is unknown, or times are negative, reversed,
            overlapping, not numbers, or beyond ten minutes.
    """
    return _visemes(_times(timing), alphabet)


def _visemes(
    rows: list[tuple[str, float, float]], alphabet: Alphabet | None
) -> list[tuple[str, float, float]]:
    symbols = [symbol for symbol, _, _ in rows]
    if alphabet is not None and alphabet not in PHONEMES:
        raise FacekitError(f"unknown alphabet '{alphabet}'; {did_you_mean(alphabet, PHONEMES)}")
    names: list[str] = [alphabet] if alphabet else list(PHONEMES)
    unknown = {name: [s for s in symbols if _spelt(s, name) is None] for name in names}
    best = min(names, key=lambda name: len(unknown[name]))
    if unknown[best]:
        symbol = unknown[best][0]
        hint = did_you_mean(symbol, PHONEMES[best])
        raise FacekitError(f"unknown phoneme '{symbol}' (read as {best}); {hint}")
    found = []
    for symbol, start, end in rows:
        visemes = _spelt(symbol, best) or ()
        # Of a diphthong's two halves the first is the longer; an affricate's are alike.
        cuts = np.linspace(start, end, len(visemes) + 1)
        if len(visemes) == 2:
            cuts[1] = start + 0.55 * (end - start)
        found += [(visemes[i], float(cuts[i]), float(cuts[i + 1])) for i in range(len(visemes))]
    return found


def _times(timing: Timing) -> list[tuple[str, float, float]]:
    rows: list[tuple[str, float, float]] = []
    before = 0.0
    for number, row in enumerate(timing, start=1):
        try:
            symbol, start, end = row
            start, end = float(start), float(end)
        except (TypeError, ValueError):
            raise FacekitError(
                f"phoneme {number}: {row!r} is not (phoneme, start in s, end in s)"
            ) from None
        said = f"phoneme {number} ('{symbol}', {start:g} s to {end:g} s)"
        if not isinstance(symbol, str):
            raise FacekitError(f"phoneme {number}: {symbol!r} is not a string; give its symbol")
        if not (np.isfinite(start) and np.isfinite(end)):
            raise FacekitError(f"{said}: times must be finite numbers, in seconds")
        if start < 0:
            raise FacekitError(f"{said}: starts before 0; times count from the clip's start")
        if end <= start:
            raise FacekitError(
                f"{said}: ends before it has lasted; the end must be after the start"
            )
        if start < before - 1e-3:
            raise FacekitError(f"{said}: overlaps the one before, which ends at {before:g} s")
        if end > LONGEST:
            raise FacekitError(f"{said}: beyond {LONGEST:g} s; cut the timing into shorter clips")
        rows.append((symbol, start, end))
        before = end
    if not rows:
        raise FacekitError("no phonemes; give at least one (phoneme, start in s, end in s)")
    return rows


def articulate(
    spoken: Sequence[tuple[str, float, float]], times: Array, effort: float = 1.0
) -> dict[str, Array]:
    """What the mouth does at ``times`` (T,), in seconds: face unit → (T,) in [0, 1].

    Args:
        spoken: (viseme, start, end) as :func:`read` gives them.
        times: evenly spaced.
        effort: how distinctly; 1 is everyday speech, 0.5 a mumble.
    """
    times = np.asarray(times, float)
    step = float(times[1] - times[0]) if len(times) > 1 else 0.04
    rows = [row for row in spoken if row[0] != "silence"]
    rows += [("silence", start, end) for start, end in _gaps(rows, times[-1] + 1.0)]
    pulled = np.zeros((len(times), len(_UNITS)))
    weight = np.full((len(times), len(_UNITS)), 0.03)  # A mouth at rest draws a little always.
    for name, start, end in rows:
        viseme = VISEMES[name]
        target = np.array([viseme.targets.get(unit, 0.0) for unit in _UNITS])
        named = np.array([unit in viseme.targets for unit in _UNITS])
        # Whatever is no closure parts the lips; other units not named are left to the neighbours.
        strength = viseme.strength * np.where(named, 1.0, 0.12)
        strength[_CLOSED] = 1.0
        half = (end - start) / 2
        if viseme.firm:
            # A closure must be seen in at least one frame.
            flat = max(0.3 * (end - start), 0.51 * step)
            strength[_IS_BRIEF & named] = 7
        elif name == "silence":
            flat = max(half - 0.06, 0.0)
            strength = np.full(len(_UNITS), viseme.strength)
        else:
            flat = 0.3 * half
            # Long sounds reach their targets, short ones fall short of them (Lindblom 1963).
            strength = strength * np.clip(half / 0.04, 0.4, 1.3)
        middle = (start + end) / 2
        first, last = np.searchsorted(times, [middle - flat - 0.7, middle + flat + 0.7])
        if first == last:
            continue
        since = times[first:last] - middle
        off = np.maximum(np.abs(since) - flat, 0)[:, None]
        reach = np.where(since[:, None] < 0, _BEFORE, _AFTER)
        dominance = strength * np.exp(-off / reach)
        pulled[first:last] += dominance * target
        weight[first:last] += dominance
    values = dict(zip(_UNITS, (pulled / weight).T, strict=True))
    return _face_units(values, effort)


def _gaps(rows: Sequence[tuple[str, float, float]], end: float) -> list[tuple[float, float]]:
    """Silences of more than 50 ms between phonemes, before the first and after the last."""
    edges = [(-1.0, -1.0), *((start, stop) for _, start, stop in rows), (end, end)]
    return [(stop, start) for (_, stop), (start, _) in pairwise(edges) if start - stop > 0.05]


def _face_units(values: dict[str, Array], effort: float) -> dict[str, Array]:
    closed = np.clip(values.pop("closed"), 0, 1)
    roll = values.pop("mouthRoll")
    units = {name: np.clip(effort * value, 0, 1) for name, value in values.items()}
    units["jawOpen"] = np.clip(units["jawOpen"], 0, 0.7)
    units["mouthClose"] = closed * units["jawOpen"]
    # Closed lips are not parted by their neighbours' raising and lowering.
    for name in ("mouthUpperUp", "mouthLowerDown", "mouthFunnel"):
        units[name] = units[name] * (1 - closed) ** 1.5
    units["mouthRollLower"] = np.clip(units["mouthRollLower"] + roll, 0, 1)
    units["mouthRollUpper"] = np.clip(roll, 0, 1)
    sided: dict[str, Array] = {}
    for name, value in units.items():
        if name in _SIDED:
            sided |= {f"{name}Left": value, f"{name}Right": value}
        else:
            sided[name] = value
    return sided


_ONSETS = "p b m f t d n l s k g h w r ʃ j θ ð v tʃ dʒ s+t p+r t+r k+l z".split()
_NUCLEI = "ə ɪ ɛ æ ɑ ʌ ɔ iː uː ʊ eɪ aɪ oʊ aʊ ɜ".split()
_CODAS = "n t s d l z r m k v n+d s+t ŋ p".split()


@dataclass(frozen=True)
class Babble:
    """Nonsense that is spoken like English.

    Attributes:
        spoken: (viseme, start, end) in seconds, as :func:`read` gives them.
        stresses: the middles of stressed syllables' vowels, in seconds.
        phrases: (start, end) of each phrase, in seconds.
    """

    spoken: list[tuple[str, float, float]]
    stresses: list[float]
    phrases: list[tuple[float, float]]


def babble(random: np.random.Generator, seconds: float) -> Babble:
    """Draw phrases of four to fourteen syllables, four to five a second, with pauses between.

    Conversational English has about 4 to 6 syllables/s of talking (Jacewicz et al. 2009), pauses
    of about 0.2 to 1 s (Campione & Véronis 2002), and phrases whose last syllable is long.
    """
    timing: list[tuple[str, float, float]] = []
    stresses: list[float] = []
    phrases: list[tuple[float, float]] = []
    now = float(random.uniform(0.1, 0.5))
    tempo = float(random.uniform(0.88, 1.15))
    while not phrases or now < seconds:
        begin = now
        count = int(random.integers(4, 15))
        for i in range(count):
            stressed = random.random() < 0.4
            stretch = tempo * (1.5 if i == count - 1 else 1.0) * (1.2 if stressed else 0.88)
            if random.random() < 0.85:
                now = _spoken(
                    timing, str(random.choice(_ONSETS)), now, stretch * random.uniform(0.06, 0.1)
                )
            vowel = str(random.choice(_NUCLEI[4:] if stressed else _NUCLEI[:8]))
            middle = now
            now = _spoken(timing, vowel, now, stretch * random.uniform(0.085, 0.13))
            if stressed:
                stresses.append((middle + now) / 2)
            if random.random() < 0.4:
                now = _spoken(
                    timing, str(random.choice(_CODAS)), now, stretch * random.uniform(0.05, 0.08)
                )
        phrases.append((begin, now))
        listening = random.random() < 0.12
        now += float(random.uniform(1.2, 2.5) if listening else np.exp(random.normal(-0.75, 0.5)))
    return Babble(_visemes(timing, "ipa"), stresses, phrases)


def rhythm(
    spoken: Sequence[tuple[str, float, float]],
) -> tuple[list[float], list[tuple[float, float]]]:
    """Guess stresses and phrases of (viseme, start, end) rows, all in seconds.

    Stressed are vowels longer than most; phrases end where there are 200 ms of silence.
    """
    vowels = [(start, end) for name, start, end in spoken if name in _VOWELS]
    usual = float(np.median([end - start for start, end in vowels])) if vowels else 0.0
    stresses = [(start + end) / 2 for start, end in vowels if end - start > 1.15 * usual]
    phrases: list[tuple[float, float]] = []
    for name, start, end in spoken:
        if name == "silence":
            continue
        if phrases and start - phrases[-1][1] < 0.2:
            phrases[-1] = (phrases[-1][0], end)
        else:
            phrases.append((start, end))
    return stresses, phrases


def _spoken(
    timing: list[tuple[str, float, float]], symbol: str, now: float, seconds: float
) -> float:
    for sound in symbol.split("+"):
        lasts = float(seconds) * (1.3 if len(sound) > 1 and "ː" not in sound else 1.0)
        lasts *= 0.75 if "+" in symbol else 1.0
        timing.append((sound, now, now + lasts))
        now += lasts
    return now


def espeak_timing(text: str, voice: str = "en") -> list[tuple[str, float, float]]:
    """Phonemes (IPA) of ``text`` and their times, as espeak-ng would say them; no sound is kept.

    Args:
        text: what is said.
        voice: one of espeak-ng's voices or languages: ``en``, ``en-us``, ``de``, ``fr`` …

    Raises:
        FacekitError: if the text is empty or has nothing to say, the library espeak-ng is not
            installed, or it has no such voice.
    """
    if not text.strip():
        raise FacekitError("no text to speak; give at least a word")
    library = _espeak()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise FacekitError(
            f"espeak-ng has no voice '{voice}'; allowed are those that 'espeak-ng --voices' lists"
        )
    starts: list[tuple[str, float]] = []
    ends: list[float] = [0.0]

    def hear(_wav: Any, _count: int, events: Any) -> int:
        i = 0
        while events[i].type != 0:
            at = events[i].audio_position / 1000
            if events[i].type == 7:
                starts.append(
                    (bytes(events[i].id.string).split(b"\0")[0].decode("utf-8", "ignore"), at)
                )
            ends.append(at)
            i += 1
        return 0

    callback = _CALLBACK(hear)
    library.espeak_SetSynthCallback(callback)
    words = text.encode()
    # Position from characters, no end, text in UTF-8.
    library.espeak_Synth(words, ctypes.c_size_t(len(words) + 1), 0, 1, 0, 1, None, None)
    library.espeak_Synchronize()
    timing = []
    for (symbol, start), end in zip(
        starts, [at for _, at in starts[1:]] + [max(ends)], strict=True
    ):
        # "(en)" marks a word of another language.
        if end > start and not symbol.startswith("("):
            timing.append((symbol, start, end))
    if not timing:
        raise FacekitError(f"espeak-ng found nothing to say in {text!r}; give words")
    return timing


class _Name(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of ``speak_lib.h``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_SYNCHRONOUS, _PHONEME_EVENTS, _AS_IPA, _DO_NOT_EXIT = 2, 1, 2, 0x8000


def _espeak() -> Any:
    """The library, initialised to report phonemes in IPA.

    Raises:
        FacekitError: if it is not installed or its data are missing.
    """
    name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise FacekitError(
            "espeak-ng is not installed; install it (apt-get install espeak-ng, brew install "
            "espeak-ng) or give phonemes and times yourself to Performance.from_phonemes"
        ) from None
    options = _PHONEME_EVENTS | _AS_IPA | _DO_NOT_EXIT
    if library.espeak_Initialize(_SYNCHRONOUS, 0, None, options) <= 0:
        raise FacekitError("espeak-ng cannot start: its voices are missing; install espeak-ng-data")
    return library
