"""Where media come from: signed manifests inside the files."""

from facekit.provenance.manifest import Provenance, sign, verify

__all__ = ["Provenance", "sign", "verify"]
