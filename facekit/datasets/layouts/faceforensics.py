"""FaceForensics++: 1000 clips from YouTube, forged by five methods, and Google's DeepFakeDetection.

Rössler, Cozzolino, Verdoliva, Riess, Thies & Nießner, "FaceForensics++: Learning to Detect
Manipulated Facial Images", ICCV 2019, arXiv 1901.08971; DeepFakeDetection: Dufour & Gully, Google
and Jigsaw 2019. Terms: research and education, not commercial, no redistribution; the download
script is sent by the authors on request, https://github.com/ondyari/FaceForensics.

``AAA_BBB`` shows clip AAA with the face, or the expression, of clip BBB; ``NN_MM__SCENE__CODE``
shows actor NN in SCENE with the face of actor MM. Who is in which clip is not published, so that
each YouTube clip counts as a person. Splits are those of ``train.json``, ``val.json`` and
``test.json`` (of the authors' repository, ``dataset/splits``) where they lie in the folder or in
``splits``; the actors have none. As the actors' faces were swapped all over, all of them are one
group that no split can part.
"""

from pathlib import Path

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.datasets.layouts import _tree
from facekit.datasets.manifest import known_as
from facekit.types import Item

LOOKED_FOR = (
    "FaceForensics++: original_sequences/{youtube,actors}/{raw,c23,c40}/videos/*.mp4 and "
    "manipulated_sequences/METHOD/{raw,c23,c40}/videos/AAA_BBB.mp4 (or frames/AAA_BBB/*.png)"
)

_COMPRESSIONS = ("raw", "c0", "c23", "c40")
_CONTENTS = ("videos", "frames", "images")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read(folder: Path) -> list[Item]:
    """The clips of all methods and compressions that are there.

    Raises:
        FacekitError: for another layout, or splits that are not lists of pairs.
    """
    splits = _splits(folder)
    items: list[Item] = []
    strange: list[str] = []
    for kind, label in (("original_sequences", 0), ("manipulated_sequences", 1)):
        for method in _tree.folders(folder / kind) if (folder / kind).is_dir() else []:
            for compression in _COMPRESSIONS:
                for name, path in _clips(method / compression):
                    who = people(name)
                    if who is None:
                        strange.append(_tree.relative(path, folder))
                        continue
                    subject, donor, source = who
                    items.append(
                        _tree.item(
                            path,
                            folder,
                            subject=subject,
                            source=source,
                            label=label,
                            generator=method.name,
                            donor=donor,
                            split=splits.get(subject, ""),
                            frame=True,
                            facts={"compression": compression},
                        )
                    )
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR)
    _tree.leave_out(folder, strange, "whose names are none of the data set's")
    return items


def people(clip: str) -> tuple[str, str, str] | None:
    """Subject, donor ("" if there is none) and source of a clip, by its name; None if it is none.

    >>> people("071_054")
    ('ff++:071', 'ff++:054', 'ff++:071')
    """
    if pair := _tree.parse(r"(\d{3})(?:_(\d{3}))?", clip):
        target, face = pair
        clip = known_as("ff++", target)
        return clip, known_as("ff++", face) if face else "", clip
    if actors := _tree.parse(r"(\d\d)(?:_(\d\d))?__(.+?)(?:__[0-9A-Z]{8})?", clip):
        target, face, scene = actors
        donor = known_as("ff++", f"actor {face}") if face else ""
        actor = known_as("ff++", f"actor {target}")
        return actor, donor, f"{actor} {scene}"
    return None


def _clips(folder: Path) -> list[tuple[str, Path]]:
    """The clips of one compression: its videos, else its frames."""
    found = (_tree.clips(folder / content) for content in _CONTENTS)
    return next((clips for clips in found if clips), [])


def _splits(folder: Path) -> dict[str, str]:
    """Clip → the split that the authors put it in."""
    splits: dict[str, str] = {}
    for name, split in _SPLITS.items():
        path = next(
            (p for p in (folder, folder / "splits") if (p / f"{name}.json").is_file()), None
        )
        if path is None:
            continue
        pairs = files.read_json(path / f"{name}.json")
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and all(isinstance(clip, str) for clip in pair) for pair in pairs
        ):
            raise FacekitError(
                f'{path / name}.json: not a list of pairs of clips, such as [["071", "054"]]'
            )
        splits |= {known_as("ff++", clip): split for pair in pairs for clip in pair}
    return splits
