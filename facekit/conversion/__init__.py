"""Conversion: a clip with one person's face replaced, by any model that swaps aligned faces.

Two passes over the clip. :func:`plan_clip` follows everyone in it, chooses the person, makes the
points steady, and says which frames are left alone, and why. :func:`convert` then cuts the faces
out, has them swapped, and fits them in: colours, what covers the face, seam, sharpness and grain.
Nothing here writes a picture: that is :mod:`facekit.export`'s.
"""

from facekit.conversion.convert import Finish, Swap, convert, listed
from facekit.conversion.plan import Plan, plan_clip, plan_picture

__all__ = ["Finish", "Plan", "Swap", "convert", "listed", "plan_clip", "plan_picture"]
