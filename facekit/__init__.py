"""facekit: a research toolkit for synthetic face media.

Importing the package loads nothing heavy; each room is imported where it is used.
"""

__version__ = "0.1.0"
