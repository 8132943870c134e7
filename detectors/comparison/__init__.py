"""Two files side by side: do they share a source, what changed between them, and where?

From the bottom up: ``register`` lays one picture over another, ``synchronise`` one video over
another in time; ``source`` says whether two files share a source, and ``changes`` where two aligned
pictures differ; ``detail`` looks at the moments that tell most; ``place`` and ``wording`` put
numbers and words to it; ``compare`` does it all, and writes what ``model`` describes.
"""
