"""A batch with a stand-in for what looks at a file, for tests that break batches off.

    python batch_of_stand_ins.py OUT WORKERS SECONDS FILE...

Each file takes so many seconds. What is "found" depends on its content alone; a file that holds
"kill" ends the process that reads it, one that holds "bug" makes it trip.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from detectors import analyze as analysis
from detectors import batch
from detectors.analyze import Analyzer, Asked, ignore
from detectors.report.model import (
    Certificate,
    FileFacts,
    FileReport,
    Provenance,
    Sampling,
    Verdict,
    Watermark,
)
from detectors.report.pictures import Pictures
from facekit.core.errors import FacekitError
from facekit.core.progress import progress

CONCLUSIONS = ("evidence of manipulation", "no evidence found", "inconclusive")


class StandIn(Analyzer):
    """Finds what the first byte of a file's hash says."""

    seconds = 0.0

    def file(self, path, *, title="", tell=ignore, bar=progress):
        with bar(title, 1) as advance:
            advance(0, "looking")
            time.sleep(self.seconds)
            content = path.read_bytes()
        if content.startswith(b"kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if content.startswith(b"bug"):
            raise ZeroDivisionError("division by zero")
        if content.startswith(b"bad"):
            raise FacekitError(f"{path}: not an image or a video")
        tell("faces", "no face")
        digest = hashlib.sha256(content)
        found = FileReport(
            name=path.name,
            path=str(path),
            facts=FileFacts(
                sha256=digest.hexdigest(), bytes=len(content), kind="image", container="jpg",
                codec="jpeg", width=64, height=64, duration=None, rate=None, has_audio=False,
            ),
            sampling=Sampling(every=None, frames=1, thinned=False),
            origin="unknown",
            verdict=Verdict(conclusion=CONCLUSIONS[digest.digest()[0] % 3], reasons=[]),
            watermark=Watermark(status="absent", kind=None, id=None, p_value=0.1 + 0.2,
                                corrected=None, frames=1),
            provenance=Provenance(status="absent", reason="none", kind=None, origin="unknown",
                                  claims={"of": content[:9].hex()}),
            certificate=Certificate(status="absent", reason="none"),
            tracks=[],
        )  # fmt: skip
        return found, Pictures(overview=digest.digest())


def use(patch=setattr):
    """Put the stand-in in the analyzer's place, also in workers that load this file."""
    patch(batch, "Analyzer", StandIn)
    patch(analysis, "load_detector", lambda name, device: None)


if __name__ in ("__main__", "__mp_main__"):
    use()
    StandIn.seconds = float(sys.argv[3])

if __name__ == "__main__":
    report = batch.run(
        batch.gather([Path(name) for name in sys.argv[4:]]),
        detector=None,
        device=torch.device("cpu"),
        asked=Asked(),
        out=Path(sys.argv[1]),
        workers=int(sys.argv[2]),
        done=lambda place, found: print(place, flush=True),
    )
    print(json.dumps(len(report.files)))
