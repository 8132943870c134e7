"""Face locators: one method, one file; the file's name is the plug-in's.

A plug-in module offers ``class Locator(device, *, min_face, max_side, weights)``, which obeys
:class:`facekit.faces.locate.Locator`; open it with :func:`facekit.faces.locate.load_locator`.
"""
