"""DF40: forty methods of swapping, re-enacting, synthesising and editing faces, as frames.

Yan et al., "DF40: Toward Next-Generation Deepfake Detection", NeurIPS 2024, arXiv 2406.13495.
Terms: CC BY-NC 4.0; https://github.com/YZY-stack/DF40.

31 methods forged clips of FaceForensics++ (``ff``, and the folders of the training archives) and
Celeb-DF (``cdf``), whose names they keep; the untouched clips come with those data sets and are
read by their layouts. Nine bring their own ``real`` beside ``fake``. Who is in these is not known:
each clip or picture counts as a person.
"""

from pathlib import Path

from facekit.datasets.layouts import _tree, celeb_df, faceforensics
from facekit.datasets.manifest import known_as
from facekit.types import Item

LOOKED_FOR = (
    "DF40: METHOD/{ff,cdf}/frames/CLIP/*.png, METHOD/frames/CLIP/*.png, METHOD/CLIP/*.png or "
    "METHOD/{real,fake}/…, with the data set's names of methods, such as simswap"
)

_METHODS = {
    *("fsgan", "faceswap", "simswap", "inswap", "blendface", "uniface", "mobileswap", "e4s"),
    *("facedancer", "deepfacelab", "fomm", "facevid2vid", "wav2lip", "mraa", "oneshotfree"),
    *("pirender", "tpsm", "lia", "danet", "dagan", "sadtalker", "mcnet", "hyperreenact"),
    *("heygen", "vqgan", "stylegan2", "stylegan3", "styleganxl", "sd21", "ddim", "rddm", "pixart"),
    *("dit", "sit", "midjourney", "whichfaceisreal", "whichisreal", "collabdiff", "e4e"),
    *("stargan", "starganv2", "styleclip"),
}
# Folders on the way to a clip that say nothing of it.
_STRUCTURE = {
    *("ff", "ffpp", "cdf", "cdfv2", "frames", "videos", "inversions", "train", "test"),
    *("celeb-real", "youtube-real"),
}


def read(folder: Path) -> list[Item]:
    """The frames and videos of the methods that are there.

    Args:
        folder: that holds the methods' folders, or is one of them.

    Raises:
        FacekitError: for another layout.
    """
    if not folder.is_dir():
        raise _tree.wrong(folder, LOOKED_FOR)
    methods = [folder] if _plain(folder.name) in _METHODS else _tree.folders(folder)
    items = []
    strange = []
    for method in methods:
        if _plain(method.name) not in _METHODS:
            strange += [_tree.relative(path, folder) for path in _tree.media(method)]
            continue
        items += [_item(folder, method, path) for path in _tree.media(method)]
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR)
    _tree.leave_out(folder, strange, "in folders that are no method's")
    return items


def _plain(name: str) -> str:
    """A method's name without what copies of the data set write differently."""
    plain = name.lower().removesuffix("_new").removesuffix("_test").removesuffix("_train")
    return "".join(letter for letter in plain if letter.isalnum())


def _item(folder: Path, method: Path, path: Path) -> Item:
    parts = [part.lower() for part in path.parent.relative_to(method).parts]
    told = [part in _tree.REAL for part in parts if part in _tree.REAL | _tree.FAKE]
    untouched = any(told)
    own = [part for part in path.parent.relative_to(method).parts if not _says_nothing(part)]
    frames = bool(own) and not _tree.is_video(path)
    clip = own[-1] if frames else path.stem
    # Methods with folders of their own real faces have nothing to do with the other data sets.
    who = None if told else faceforensics.people(clip) or celeb_df.people(clip)
    here = known_as("df40", f"{_plain(method.name)} {clip}")
    subject, donor, source = who or (here, "", here)
    return _tree.item(
        path,
        folder,
        subject=subject,
        source=source,
        label=0 if untouched else 1,
        generator=method.name,
        donor=donor,
        frame=frames,
    )


def _says_nothing(part: str) -> bool:
    lower = part.lower()
    return lower in _STRUCTURE | _tree.REAL | _tree.FAKE or _plain(part) in _METHODS
