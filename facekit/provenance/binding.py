"""Whether the watermark in a picture is the one that its manifest names.

The manifest's own hash binds it to the very bytes of its file, and is lost with them; the soft
binding, C2PA's word for the watermark, outlives a new encoding. Each vouches for the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from facekit.provenance.claims import Provenance


@dataclass(frozen=True)
class Binding:
    """How a file's watermark and its manifest go together.

    Attributes:
        status: "agrees"; "differs" (the mark is another than the manifest names); "weak" (there
            is a mark, but its payload cannot be read); "lost" (the manifest names a mark that is
            not found); "unclaimed" (a mark that no manifest names); "none" (neither); "unread"
            (the pixels could not be read).
        text: the same in a sentence.
    """

    status: Literal["agrees", "differs", "weak", "lost", "unclaimed", "none", "unread"]
    text: str


def compare(provenance: Provenance, mark: Mapping[str, Any] | None) -> Binding:
    """Compare the mark that was read from a file with what its manifest says of it.

    Args:
        provenance: the file's.
        mark: what was read, as ``facekit.watermark.Reading.to_json`` gives it: present, payload
            (hex), kind, id; None if the pixels could not be read.
    """
    claimed = provenance.claims.get("mark")
    if mark is None:
        return Binding("unread", "the watermark could not be read")
    if not mark["present"]:
        if claimed:
            return Binding("lost", f"the manifest names the mark {claimed}, which is not found")
        return Binding("none", "no mark, and none named")
    says = _says(mark)
    if provenance.status == "absent":
        return Binding(
            "unclaimed",
            f"the manifest is missing, and the mark {says}: the file was written anew by another "
            "program, or the manifest was removed",
        )
    if not claimed:
        return Binding("unclaimed", f"the manifest names no mark, but there is one, which {says}")
    if not mark["payload"]:
        return Binding("weak", f"the manifest names the mark {claimed}; one is there, which {says}")
    if mark["payload"] == claimed:
        return Binding("agrees", f"the mark is the one that the manifest names; it {says}")
    return Binding(
        "differs",
        f"the manifest names the mark {claimed}, but the one in the picture is {mark['payload']}, "
        f"which {says}: manifest and picture do not belong together",
    )


def _says(mark: Mapping[str, Any]) -> str:
    if not mark["payload"]:
        return "is too weak to tell what it says"
    number = f", id {mark['id']:012x}" if mark["id"] else ""
    nothing = " (evidence of nothing)" if mark["kind"] == "test-real" else ""
    return f"says {mark['kind']}{number}{nothing}"
