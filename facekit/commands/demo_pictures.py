"""The pictures of the demo's page."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facekit.media.decode import Video
from facekit.media.images import read_image
from facekit.types import Floats, Pixels

_INK, _SOFT, _RED, _BLUE = "#1c1d20", "#8a8d94", "#9c2a1f", "#2b5379"


def grid(rows: list[list[Pixels]]) -> Pixels:
    """Pictures of one size, in rows, as one picture."""
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def inner_face(landmarks: Floats) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around brows, nose and mouth of iBUG-68 landmarks, in whole pixels."""
    low, high = landmarks[17:].min(0), landmarks[17:].max(0)
    return int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1


def psnr(
    first: list[Pixels], second: list[Pixels], boxes: list[tuple[int, int, int, int]]
) -> float:
    """Peak signal to noise ratio in dB, over one box a frame."""
    errors = [
        ((a[y0:y1, x0:x1].astype(float) - b[y0:y1, x0:x1]) ** 2).mean()
        for a, b, (x0, y0, x1, y1) in zip(first, second, boxes, strict=True)
    ]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def pipeline(out: Path, people: list[Pixels], mark: dict[str, Any]) -> Pixels:
    """The whole way as one picture, from what a finished demo in ``out`` holds.

    Args:
        out: the demo's folder.
        people: pictures of studio people, at least four.
        mark: the mark's reading, as ``watermark read --json`` gives it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from facekit import watermark

    with Video(out / "clip" / "clip.mp4") as clip, Video(out / "swap.mp4") as swap:
        middle = clip.info.duration / 2 if clip.info.duration else 0.0
        target, swapped = clip.at(middle).pixels, swap.at(middle).pixels
    strip = read_image(sorted((out / "swap" / "strips").glob("*.png"))[-1])
    changed = watermark.embed(target, watermark.Payload(watermark.Kind.TEST_REAL, 0))
    report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))

    figure = Figure(figsize=(14, 2.9), dpi=150)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
    titles = (
        ("render", "people who don't exist"),
        ("locate, align", "one stage for both sides"),
        ("train", "face · drawn · swapped"),
        ("generate", "marked, badged, signed"),
        ("read the mark", f"p = {mark['p_value']:.0e} (shown × 12)"),
        ("analyze", "score over time"),
    )
    panels = (
        grid([people[:2], people[2:4]]),
        _with_face(target),
        _corner(strip),
        swapped,
        np.clip(128 + 12.0 * (changed.astype(float) - target), 0, 255).astype(np.uint8),
        None,
    )
    for i, ((title, note), panel) in enumerate(zip(titles, panels, strict=True)):
        axes = figure.add_axes((0.012 + i * 0.166, 0.17, 0.138, 0.66))
        axes.set_title(title, fontsize=13, color=_INK, fontweight="bold", pad=8)
        axes.set_xlabel(note, fontsize=10, color=_SOFT, labelpad=6)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        if panel is not None:
            axes.imshow(panel, aspect="equal", interpolation="antialiased")
        else:
            _scores(axes, report)
        if i:
            figure.text(-0.003 + i * 0.166, 0.5, "→", fontsize=17, color=_SOFT, ha="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _corner(strip: Pixels) -> Pixels:
    """Of a training strip the first three people's first face: seen, drawn, swapped."""
    side = strip.shape[1] // 6  # six faces lie side by side
    return strip[: 3 * side, : 3 * side]


def _with_face(pixels: Pixels) -> Pixels:
    """A copy with each located face's box and points drawn in."""
    from facekit.core.device import setup
    from facekit.faces.locate import load_locator

    drawn = pixels.copy()
    (faces,) = load_locator(setup().device).locate([pixels])
    for face in faces:
        x0, y0, x1, y1 = (round(float(v)) for v in face.box)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), (255, 255, 255), 1, cv2.LINE_AA)
        for x, y in face.points:
            place = (round(float(x)), round(float(y)))
            cv2.circle(drawn, place, 2, (90, 255, 190), -1, cv2.LINE_AA)
    return drawn


def _scores(axes: Any, report: dict[str, Any]) -> None:
    """Each file's scores over time, and the threshold."""
    for file, colour, word in zip(
        report["files"], (_RED, _BLUE), ("swap", "untouched"), strict=True
    ):
        for track in file["tracks"]:
            points = [(s["time"], s["score"]) for s in track["sightings"] if s["score"] is not None]
            if not points:
                continue
            times, scores = zip(*points, strict=True)
            axes.plot(times, scores, color=colour, linewidth=2)
            axes.annotate(
                word,
                (times[-1], scores[-1]),
                (-4, -30 if scores[-1] > 0.5 else 8),
                textcoords="offset points",
                color=colour,
                fontsize=10,
                ha="right",
            )
    threshold = report["detector"]["threshold"]
    axes.axhline(threshold, color=_SOFT, linewidth=1, linestyle="--")
    axes.set_ylim(-0.03, 1.03)
    axes.set_box_aspect(1)
