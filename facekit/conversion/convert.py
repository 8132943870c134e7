"""The second pass: change the face in each frame as the plan says, with whatever model."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit.conversion import colour, detail, occlusion
from facekit.conversion.colour import Transfer
from facekit.conversion.images import to_images, to_pixels
from facekit.conversion.plan import Place, Plan, plan_clip, plan_picture
from facekit.core.ahead import ahead
from facekit.core.errors import FacekitError
from facekit.faces.align import apply, crop_from_image, draw_crop, invert
from facekit.faces.blend import Seam, paste
from facekit.faces.stage import Stage
from facekit.types import Floats, Frame, Pixels

log = logging.getLogger("facekit")

Swap = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Aligned crops (B, 3, S, S) in [-1, 1], of the template "face" → their new faces, of the same
shape, and the share (B, 1, S, S) in [0, 1] that each pixel of them has in the result."""

TEMPLATE = "face"

_BATCH = 8
# What is measured of a frame (colours, noise, what covers it) is averaged over its neighbours with
# binomial weights: two frames before and two after.
_WEIGHTS = (1.0, 4.0, 6.0, 4.0, 1.0)
_RADIUS = len(_WEIGHTS) // 2
_OTHER_FRAMES = (
    "the frames are not those that were planned for: the file was changed meanwhile; let it be, "
    "and begin again"
)
_MEASURED = 160  # pixels: side of the crops in which sharpness is compared


@dataclass(frozen=True)
class Finish:
    """How a new face is fitted into its frame.

    Attributes:
        colour: the transfer of the target's colours, see :mod:`facekit.conversion.colour`.
        seam: see :mod:`facekit.faces.blend`.
        occlusion: keep what covers the face in front of it.
        sharpen: give the new face the target's sharpness. Where what is drawn is soft, this is a
            look: details stand out more, but are no nearer to the truth.
        grain: add the target's noise to the new face.
    """

    colour: Transfer = "transport"
    seam: Seam = "bands"
    occlusion: bool = True
    sharpen: bool = True
    grain: bool = True


def convert(
    frames: Iterable[Frame],
    swap: Swap,
    *,
    size: int,
    device: torch.device,
    still: bool = False,
    plan: Plan | None = None,
    finish: Finish = Finish(),
    first: int = 0,
) -> Iterator[Frame]:
    """Yield each frame with one person's face replaced, in order and with its time.

    Which person, and in which frames, is for the plan to say; other frames pass through untouched.
    The pixels of a frame do not depend on ``first``: a conversion that was broken off goes on as
    if it had not been.

    Args:
        frames: of one clip, or unrelated pictures if ``still``. A clip without a plan is gone
            through twice; if it can be iterated once only, its frames are held in memory.
        swap: see :data:`Swap`.
        size: S, the side of the crops that ``swap`` takes.
        device: where to locate, swap and see what covers the face.
        still: treat each frame as a picture of its own, each with the largest face.
        plan: from :func:`facekit.conversion.plan.plan_clip`, of these very frames; by default the
            face of whoever has the largest one in the first frame that shows any. Of stills, the
            plans of :func:`facekit.conversion.plan.plan_picture`, one after the other.
        finish: how the new face is fitted in.
        first: number of the first frame to yield; those before are made elsewhere.

    Raises:
        FacekitError: if the plan is of other frames, or for a finish that does not exist.
    """
    if plan is None and not still:
        frames = list(frames) if iter(frames) is frames else frames
        plan = plan_clip(frames, device=device)
        _report(plan.places)
    visible = occlusion.load(device) if finish.occlusion else None
    draw = partial(_drawn, swap=swap, visible=visible, size=size, device=device, finish=finish)
    # Batches begin at the same frames wherever the work begins, since a network's last bits
    # depend on what is in the batch; and with the neighbours that the first frame needs.
    begin = max(0, first - _RADIUS) // _BATCH * _BATCH
    placed = _each_alone(frames, plan, device) if still else _placed(frames, plan)
    # Frames are decoded in a thread of their own, while others are worked on.
    with ahead(islice(placed, begin, None), _BATCH) as fetched:
        drawn = chain.from_iterable(map(draw, iter(lambda: list(islice(fetched, _BATCH)), [])))
        for number, frame in enumerate(_finished(drawn, finish), start=begin):
            if number >= first:
                yield frame


@dataclass(frozen=True)
class _Drawn:
    """A frame, and what is to be laid into it; ``face`` is None if nothing is."""

    frame: Frame
    run: int
    matrix: NDArray[np.float64] | None = None
    face: Pixels | None = None  # (S, S, 3)
    share: Floats | None = None  # (S, S)
    visible: Floats | None = None  # (S, S)
    own: "_Look | None" = None  # of the new face
    target: "_Look | None" = None  # of the one in the frame


@dataclass(frozen=True)
class _Look:
    """What is measured of a face, to give the one the look of the other."""

    colours: colour.Colours | None
    sharpness: float
    noise: float = 0.0  # levels


def listed(places: Sequence[Place], most: int = 12) -> str:
    """The frames that are left alone, and why, for a line of text."""
    stretches = Plan(tuple(places)).untouched()
    more = [f"and {len(stretches) - most} stretches more"] if len(stretches) > most else []
    return ", ".join([*map(str, stretches[:most]), *more])


def _report(places: Sequence[Place]) -> None:
    alone = sum(place.points is None for place in places)
    if alone:
        log.info("%d of %d frames are unchanged: %s", alone, len(places), listed(places))


def _placed(frames: Iterable[Frame], plan: Plan | None) -> Iterator[tuple[Frame, Place]]:
    """Each frame of a clip with its place."""
    places = iter(plan.places if plan else ())
    for frame in frames:
        place = next(places, None)
        if place is None or place.time != frame.time:
            raise FacekitError(_OTHER_FRAMES)
        yield frame, place
    if next(places, None) is not None:
        raise FacekitError(_OTHER_FRAMES)


def _each_alone(
    frames: Iterable[Frame], plan: Plan | None, device: torch.device
) -> Iterator[tuple[Frame, Place]]:
    """Each of unrelated pictures with its place, and a run of its own."""
    places: list[Place] = []
    stage = Stage(device) if plan is None else None
    for number, frame in enumerate(frames):
        if plan is not None:
            place = plan.places[number]
        else:
            (place,) = plan_picture(frame.pixels, device=device, stage=stage).places
        places.append(replace(place, time=frame.time))
        yield frame, replace(place, run=number)
    if plan is None:
        _report(places)


def _drawn(
    batch: list[tuple[Frame, Place]],
    *,
    swap: Swap,
    visible: occlusion.Visible | None,
    size: int,
    device: torch.device,
    finish: Finish,
) -> list[_Drawn]:
    """Draw the new faces of a batch, and measure what they are to be fitted to."""
    shown = [(frame, place) for frame, place in batch if place.points is not None]
    new: Iterator[_Drawn] = iter(())
    if shown:
        points = np.stack([place.points for _, place in shown if place.points is not None])
        matrices = crop_from_image(points, TEMPLATE, size)
        crops = np.empty((len(shown), size, size, 3), np.uint8)
        for crop, (frame, _), inverse in zip(crops, shown, invert(matrices), strict=True):
            draw_crop(crop, frame.pixels, inverse)
        images = to_images(torch.from_numpy(crops).to(device))
        with torch.no_grad():
            faces, shares = swap(images)
            bare = visible(images) if visible is not None else None
        pixels = to_pixels(faces)
        covers = _on_host(shares)
        seen = [None] * len(shown) if bare is None else list(_on_host(bare))
        new = (
            _measured(frame, place.run, matrix, crop, face, share, bare_face, finish)
            for (frame, place), matrix, crop, face, share, bare_face in zip(
                shown, matrices, crops, pixels, covers, seen, strict=True
            )
        )
    return [
        _Drawn(frame, place.run) if place.points is None else next(new) for frame, place in batch
    ]


def _measured(
    frame: Frame,
    run: int,
    matrix: NDArray[np.float64],
    crop: Pixels,
    face: Pixels,
    share: Floats,
    visible: Floats | None,
    finish: Finish,
) -> _Drawn:
    weight = share if visible is None else share * visible
    unit = np.float32(1 / 255)
    side = len(crop)
    # In a crop of the model's size the target has lost the detail that is to be compared.
    reach = side / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    measured = int(np.clip(reach, side, max(_MEASURED, side)))
    target: Pixels = np.empty((measured, measured, 3), np.uint8)
    draw_crop(target, frame.pixels, invert(matrix * (measured / side)))
    noise = detail.noise(_face_window(frame.pixels, matrix, side))
    grown, where = _grown(face, measured), np.clip(_grown(weight, measured), 0, 1)
    own, theirs = (detail.sharpness(detail.luma(one), where) for one in (grown, target))
    # What is only noise is no detail; a crop that shrinks the picture averages noise away.
    theirs = detail.without_noise(theirs, noise * min(1.0, measured / reach))
    new = _Look(colour.Colours.of(unit * face, weight), own)
    old = _Look(colour.Colours.of(unit * crop, weight), theirs, noise)
    return _Drawn(frame, run, matrix, face, share, visible, new, old)


def _grown(layer: Any, side: int) -> Any:
    return cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC)


def _face_window(pixels: Pixels, matrix: NDArray[np.float64], size: int) -> Pixels:
    """The middle of the face, as it is in the picture."""
    inverse = invert(matrix)
    (x, y), (right, _) = apply(inverse, np.array([[size / 2, size / 2], [size, size / 2]]))
    half = max(abs(right - x) * 0.5, 8.0)
    x0, x1 = np.clip([x - half, x + half], 0, pixels.shape[1]).astype(int)
    y0, y1 = np.clip([y - half, y + half], 0, pixels.shape[0]).astype(int)
    return pixels[y0:y1, x0:x1]


def _finished(drawn: Iterable[_Drawn], finish: Finish) -> Iterator[Frame]:
    """Lay the new faces in, each with what was measured of it and of its neighbours."""
    outside: list[None] = [None] * _RADIUS
    window: deque[_Drawn | None] = deque(outside, maxlen=len(_WEIGHTS))
    for entry in chain(drawn, outside):
        window.append(entry)
        if len(window) < len(_WEIGHTS):
            continue
        middle = window[_RADIUS]
        if middle is not None:
            yield _finish(middle, _run_of(middle, window), finish)


def _run_of(middle: _Drawn, window: Iterable[_Drawn | None]) -> list[tuple[float, _Drawn]]:
    """The neighbours in the middle's own run, with their weights."""
    return [
        (weight, entry)
        for weight, entry in zip(_WEIGHTS, window, strict=True)
        if entry is not None and entry.face is not None and entry.run == middle.run
    ]


def _finish(drawn: _Drawn, near: list[tuple[float, _Drawn]], finish: Finish) -> Frame:
    """Lay the new face in.

    What is measured of the target is averaged over its neighbours: a face does not change from one
    frame to the next. What is measured of the new face is its own: a model that is brighter in one
    frame than in the next is thereby put right.
    """
    frame, own = drawn.frame, drawn.own
    if drawn.face is None or drawn.matrix is None or drawn.share is None or own is None:
        return frame
    target = _average([(weight, one.target) for weight, one in near if one.target is not None])
    face: Floats = drawn.face.astype(np.float32)
    contrast = 1.0
    if own.colours is not None and target.colours is not None:
        colours = colour.match(own.colours, target.colours, finish.colour)
        if colours is not None:
            drawn_so = np.float32(1 / 255) * face
            skin = colours.apply(drawn_so)
            stays = colour.eyes(drawn_so, own.colours)[..., None]
            face = np.float32(255) * (skin + stays * (drawn_so - skin))
            contrast = float(colours.linear[0, 0])
    gain = detail.gain(own.sharpness * contrast, target.sharpness) if finish.sharpen else 1.0

    def retouch(layer: Floats, side: float) -> Floats:
        layer = detail.sharpened(layer, gain, side)
        shape = layer.shape[0], layer.shape[1]
        added = detail.grain(shape, target.noise, frame.index) if finish.grain else None
        if added is not None:
            layer += added[..., None]
        return layer

    visible = [(weight, one.visible) for weight, one in near if one.visible is not None]
    pixels = paste(
        frame.pixels,
        face,
        drawn.matrix,
        drawn.share,
        seam=finish.seam,
        veil=occlusion.veil(visible) if visible else None,
        retouch=retouch,
    )
    return Frame(pixels, frame.time, frame.index)


def _average(looks: Sequence[tuple[float, _Look]]) -> _Look:
    weights = [weight for weight, _ in looks]
    colours = [(weight, look.colours) for weight, look in looks if look.colours is not None]
    return _Look(
        colour.Colours.average([c for _, c in colours], [w for w, _ in colours])
        if colours
        else None,
        float(np.average([look.sharpness for _, look in looks], weights=weights)),
        float(np.average([look.noise for _, look in looks], weights=weights)),
    )


def _on_host(maps: Tensor) -> Floats:
    """(B, 1, S, S) → float32 (B, S, S)."""
    return np.asarray(maps.float().squeeze(1).cpu().numpy(), np.float32)
