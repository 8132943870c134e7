"""Whether a file is generated, as its mark or its manifest says, and what that asks of its copies.

What is made of generated media is generated too: it leaves marked and signed, with the same kind.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facekit import watermark
from facekit.provenance import manifest
from facekit.provenance.ledger import Ledger
from facekit.types import Item, Pixels
from facekit.watermark import Kind

Export = Callable[..., object]
"""Writes generated pictures or videos: :mod:`facekit.export`'s functions, with their arguments."""

_KINDS = {
    Kind.GENERATED.label: Kind.GENERATED,
    Kind.COMPOSITE.label: Kind.COMPOSITE,
    # What other tools' manifests say.
    "trainedAlgorithmicMedia": Kind.GENERATED,
    "compositeWithTrainedAlgorithmicMedia": Kind.COMPOSITE,
    "compositeSynthetic": Kind.COMPOSITE,
}


@dataclass(frozen=True)
class Generated:
    """That a file is generated, and what its manifest and its mark say of it.

    Attributes:
        kind: ``Kind.GENERATED`` or ``Kind.COMPOSITE``.
        facts: of its manifest, where that is intact.
        id: of the mark; 0 if it cannot be read.
        consent: ids of the consent records in this machine's ledger that its manifest names.
    """

    kind: Kind
    facts: dict[str, Any] = field(default_factory=dict)
    id: int = 0
    consent: tuple[str, ...] = ()

    @property
    def terms(self) -> dict[str, Any]:
        """What :mod:`facekit.export` is to be told of a copy."""
        return {"kind": self.kind, "facts": self.facts, "id": self.id, "consent": self.consent}

    def item(self, origin: Item) -> Item:
        """``origin`` as one of a generated input."""
        maker = str(self.facts.get("generator") or origin.generator)
        facts = origin.facts | {"kind": self.kind.label}
        facts |= {"consent": list(self.consent)} if self.consent else {}
        return origin.model_copy(update={"label": 1, "generator": maker, "facts": facts})


def find_generated(
    path: Path, pixels: Pixels | None = None, *, search: bool = True
) -> Generated | None:
    """What a file says of being generated, by its mark or its manifest; None if it says nothing.

    Args:
        path: of the picture or video.
        pixels: the picture, where it is read already.
        search: also look for a mark that lies elsewhere, as in a crop; it takes ten times as long
            as to locate the faces of a photo.

    Raises:
        FacekitError: if the file is neither, or is damaged; one line that names it.
    """
    if pixels is None:
        reading = watermark.read_file(path, search=search)
    else:
        reading = watermark.read(pixels, search=search)
    provenance = manifest.verify(path)
    claims = provenance.claims
    said = [_KINDS.get(str(claims.get(key))) for key in ("kind", "source_type")]
    mark = _KINDS.get(reading.kind or "")
    if mark is None and reading.present and reading.payload is None:
        # A mark too weak to say of what kind; real footage is not marked but for tests.
        mark = Kind.GENERATED
    kind = next((kind for kind in (*said, mark) if kind is not None), None)
    if kind is None:
        return None
    believed = provenance.status in ("trusted", "untrusted")
    return Generated(
        kind,
        dict(claims.get("facts") or {}) if believed else {},
        reading.payload.id if reading.payload else 0,
        _consent(claims.get("consent") or ()),
    )


def _consent(hashes: Collection[str]) -> tuple[str, ...]:
    """The ids of records that a manifest names by their hashes."""
    if not hashes:
        return ()
    ids = (record.id for record in Ledger().records())
    return tuple(id for id in ids if manifest.consent_hash(id) in hashes)
