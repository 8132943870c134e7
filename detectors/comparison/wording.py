"""What changed between two files, in words."""

import math
from collections.abc import Sequence

from detectors.comparison.model import (
    Change,
    ChangeCode,
    Detail,
    Moment,
    Place,
    Side,
    TimeOffset,
)
from detectors.report.model import FileFacts, Provenance, Watermark
from detectors.report.text import clock, count, percent

LIMITS = (
    "That two files share a source does not tell which came first, nor which of them is untouched: "
    "a difference may have been put into either.",
    "A second photo of a scene, a moment later, resembles a changed copy: where the fine detail "
    "agrees in part only, the comparison says so, and which of the two it is cannot be told. "
    "Frames a fraction of a second apart may agree as copies do.",
    "Only scaling, cropping, turning, mirroring and stretching are undone. A photo of a screen, "
    "taken at a slant, or a copy bent otherwise, may be missed.",
    "Changes that are smaller than about 1% of the picture, or no stronger than what compression "
    "does, are not found. No difference found does not mean that there is none.",
)

_TAGS = 40  # of the metadata, that are named at most


def of_place(place: Place | None) -> list[Change]:
    """Crop, scale, stretch, turn and mirroring."""
    if place is None:
        return []
    changes = []
    across, down = place.scale
    if place.share_of_a < 0.985:
        changes.append(_change("cropped", f"B shows {100 * place.share_of_a:.0f}% of A"))
    if place.share_of_b < 0.985:
        text = f"A shows {100 * place.share_of_b:.0f}% of B: the rest of B lies outside of A"
        changes.append(_change("cropped", text))
    mean = math.sqrt(across * down)
    if abs(mean - 1) > 0.01:
        changes.append(_change("scaled", f"B shows it at {100 * mean:.3g}% of A's size"))
    if abs(across / down - 1) > 0.015:
        text = f"B is stretched: {across / down:.3g} times as wide for its height as A"
        changes.append(_change("stretched", text))
    if abs(place.turned) > 0.3:
        way = "clockwise" if place.turned > 0 else "counter-clockwise"
        changes.append(_change("turned", f"B is turned by {abs(place.turned):.1f}° {way}"))
    if place.mirrored:
        changes.append(_change("mirrored", "B is mirrored: left and right are swapped"))
    return changes


def of_time(one: Side, two: Side, time: TimeOffset | None) -> list[Change]:
    """Offset and length."""
    if time is None:
        return []
    changes = []
    if abs(time.offset) > 0.02:
        first, second = ("B", "A") if time.offset < 0 else ("A", "B")
        sure = "" if time.sure else "; little moves, or it repeats, so that this is uncertain"
        text = f"{first} begins {abs(time.offset):.2f} s into {second}{sure}"
        changes.append(_change("offset", text))
    length_a, length_b = one.facts.duration or 0.0, two.facts.duration or 0.0
    if abs(length_a - length_b) > 0.1:
        changes.append(_change("length", f"A lasts {length_a:.2f} s, B {length_b:.2f} s"))
    return changes


def of_picture(details: Sequence[Detail], moments: Sequence[Moment]) -> list[Change]:
    """Tone, changed areas, faces and sharpness, of the moment at which most differs.

    Args:
        details: of the pictures, or of the moments of videos that differ most.
        moments: of videos; none of pictures.
    """
    if not details:
        return []
    changes = []
    worst = max(details, key=lambda one: one.changed)
    tone = worst.tone
    if tone.colour < 0.15 or tone.colour > 7:
        changes.append(_change("grey", f"{'A' if tone.colour < 1 else 'B'} has next to no colour"))
    said = []
    if abs(tone.brightness) > 3:
        said.append(
            f"{'darker' if tone.brightness > 0 else 'brighter'} by "
            f"{abs(tone.brightness):.0f} of 255 levels"
        )
    if abs(tone.contrast - 1) > 0.05:
        said.append(f"{'less' if tone.contrast > 1 else 'more'} contrast")
    if 0.15 <= tone.colour <= 7 and abs(tone.colour - 1) > 0.15:
        said.append(f"{'paler' if tone.colour > 1 else 'more vivid'} colours")
    if said:
        changes.append(_change("tone", f"the whole of B differs in tone: {', '.join(said)}"))
    if worst.areas:
        where = f" at {clock(worst.time_a)} of A" if moments else ""
        text = (
            f"beyond that, they differ{where} in {count(len(worst.areas), 'place')}, "
            f"{percent(worst.changed)} of what they share"
        )
        same = sum(not moment.changed for moment in moments)
        if same:
            text += f"; at {same} of {len(moments)} moments looked at no place stands out"
        changes.append(_change("areas", text))
    faces = [face for one in details for face in one.faces if face.changed > 0.05]
    if faces:
        most = max(faces, key=lambda face: face.changed)
        changes.append(
            _change(
                "face",
                f"a face differs: {percent(most.changed)} of it, against "
                f"{percent(most.elsewhere)} of the rest",
            )
        )
    if worst.softness < 0.7 or worst.softness > 1.4:
        softer, part = ("B", worst.softness) if worst.softness < 1 else ("A", 1 / worst.softness)
        changes.append(
            _change(
                "softer",
                f"{softer} has {100 * part:.0f}% of the other's finest detail: it was blurred, "
                "scaled up or compressed more, or the other was sharpened",
            )
        )
    return changes


def of_file(one: Side, two: Side) -> list[Change]:
    """Container, compression, frame rate, sound, mark, credentials and metadata."""
    a, b = one.facts, two.facts
    changes = []
    if (a.codec, a.details and a.details.format) != (b.codec, b.details and b.details.format):
        changes.append(_change("container", f"A is {_format(a)}, B is {_format(b)}"))
    if _coding(a) != _coding(b):
        changes.append(_change("compression", f"A: {_coding(a)}; B: {_coding(b)}"))
    if a.rate and b.rate and abs(a.rate / b.rate - 1) > 0.005:
        changes.append(_change("rate", f"A has {a.rate:.4g} frames a second, B {b.rate:.4g}"))
    if a.has_audio != b.has_audio and a.kind == b.kind:
        changes.append(_change("sound", f"only {'A' if a.has_audio else 'B'} has sound"))
    marks = [_mark(side.watermark) for side in (one, two)]
    if marks[0] != marks[1]:
        changes.append(_change("mark", f"A bears {marks[0]}, B {marks[1]}"))
    signed = [_credentials(side.provenance) for side in (one, two)]
    if signed[0] != signed[1]:
        changes.append(_change("credentials", f"A has {signed[0]}, B {signed[1]}"))
    return [*changes, *_of_tags(a, b)]


def _of_tags(a: FileFacts, b: FileFacts) -> list[Change]:
    own = a.details.metadata if a.details else {}
    other = b.details.metadata if b.details else {}
    changes = []
    for name in sorted(own.keys() | other.keys()):
        if own.get(name) != other.get(name):
            values = [f"“{tags[name]}”" if name in tags else "nothing" for tags in (own, other)]
            changes.append(_change("metadata", f"{name}: {values[0]} in A, {values[1]} in B"))
    return changes[:_TAGS]


def _format(facts: FileFacts) -> str:
    known = facts.details.format if facts.details else facts.container
    return known if known == facts.codec else f"{known} ({facts.codec})"


def _coding(facts: FileFacts) -> str:
    """How much a file is compressed, in short."""
    density = 8 * facts.bytes / (facts.width * facts.height)
    if facts.kind == "video":
        video = facts.details.video if facts.details else None
        # How it was encoded, where that is told, is among the metadata.
        return f"{video.bit_rate / 1e6:.3g} Mbit/s" if video and video.bit_rate else "unknown rate"
    picture = facts.details.picture if facts.details else None
    if picture is None or picture.quality is None:
        return f"{density:.2g} bits a pixel"
    about = "" if picture.tables == "standard" else "about "
    return f"JPEG quality {about}{picture.quality}, {picture.subsampling or 'grey'}"


def _mark(mark: Watermark) -> str:
    if mark.status == "present":
        return f"a mark that says '{mark.kind}' ({mark.id})" if mark.kind else "a mark"
    return "no mark" if mark.status == "absent" else "a mark that could not be looked for"


def _credentials(found: Provenance) -> str:
    if found.status == "absent":
        return "no content credentials"
    by = f" by {found.signer}" if found.signer else ""
    return {
        "trusted": f"content credentials signed{by}, trusted",
        "untrusted": f"content credentials signed{by}, by someone nobody here vouches for",
        "tampered": "content credentials that do not match it",
        "not read": "content credentials that could not be read",
    }[found.status]


def _change(code: ChangeCode, text: str) -> Change:
    return Change(code=code, text=text)
