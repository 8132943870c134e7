"""Lessons: what the studio teaches a network of :mod:`facekit.faces`; see :mod:`..teach`."""
