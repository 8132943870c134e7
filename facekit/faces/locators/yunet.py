"""YuNet through OpenCV: one small network that finds faces and five points in a single pass.

Wu, Peng & Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023. The weights are the user's
own file, e.g. OpenCV Zoo's ``face_detection_yunet_2023mar.onnx``; none are bundled. OpenCV runs it
on the processor, picture by picture, whatever the device.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.faces.locators._working import shrunk, to_faces, working_shape
from facekit.types import Face, Pixels

_SCORE = 0.7
_OVERLAP = 0.3  # of two boxes that are one face: OpenCV's
_MOST = 5000  # candidates before overlaps are dropped


class Locator:
    """YuNet behind :class:`facekit.faces.locate.Locator`."""

    def __init__(
        self,
        device: torch.device,
        *,
        min_face: int = 40,
        max_side: int = 640,
        weights: Path | None = None,
    ) -> None:
        """Read the network.

        Args:
            device: not used; see above.
            min_face: smallest face to return: longer side of its box, in pixels of the picture.
            max_side: pictures with a longer side are shrunk to it for the search. The network
                sees faces of 10 to 300 pixels of the shrunk picture.
            weights: YuNet as .onnx.

        Raises:
            FacekitError: if there are no weights, or they are not those of a YuNet.
        """
        if weights is None:
            raise FacekitError(
                "the locator 'yunet' brings no weights; give its .onnx with --locator-weights, "
                "or use --locator mtcnn"
            )
        if not weights.is_file():
            raise FacekitError(f"{weights}: no such file")
        self._min_face = min_face
        self._max_side = max_side
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(weights), "", (64, 64), _SCORE, _OVERLAP, _MOST
            )
            self._net.detect(np.zeros((64, 64, 3), np.uint8))
        except cv2.error as error:
            raise FacekitError(
                f"{weights}: not a YuNet that OpenCV {cv2.__version__} can run; give the .onnx of "
                "cv2.FaceDetectorYN"
            ) from error

    def locate(self, images: Sequence[Pixels]) -> list[list[Face]]:
        """Find the faces of each picture.

        Args:
            images: uint8 RGB (H, W, 3); sizes may differ.

        Returns:
            For each picture its faces, largest first; boxes may reach beyond the border.
        """
        return [self._faces(image) for image in images]

    def _faces(self, image: Pixels) -> list[Face]:
        shape = working_shape(image, self._max_side)
        self._net.setInputSize(shape[::-1])
        _, rows = self._net.detect(cv2.cvtColor(shrunk(image, shape), cv2.COLOR_RGB2BGR))
        return (
            []
            if rows is None
            else to_faces(_ours(np.asarray(rows, np.float32)), image, shape, self._min_face)
        )


def _ours(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """OpenCV's rows (N, 15) as (box 4, score, points 10).

    Its boxes are x, y, width, height. Its points begin with the person's own right eye, which is
    the picture's left one: that is our order already.
    """
    ends = rows[:, :2] + rows[:, 2:4]
    return np.concatenate([rows[:, :2], ends, rows[:, 14:].clip(0, 1), rows[:, 4:14]], axis=1)
