"""Identity networks: one file a network; each holds ``class Embedder(device, *, weights=None)``.

It is an :class:`facekit.faces.embed.Embedder`; ``weights`` is a file of the user's, or None for
those that come with it.
"""
