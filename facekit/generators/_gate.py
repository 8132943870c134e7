"""Whose face may be generated: until consent records exist, only that of people who don't.

Training data and every input to be changed must be certified studio media; nothing live or still
growing is taken, so that no generator becomes a tool for impersonation in a call.
"""

import stat
import time
from pathlib import Path

from facekit.core.errors import FacekitError


def certified(path: Path) -> str:
    """The id of the studio certificate that covers ``path``, a folder or a file in one.

    Raises:
        FacekitError: if there is none, or the media are not those that it was issued for.
    """
    from facekit.studio.certificate import verify

    try:
        return verify(path).id
    except FacekitError as error:
        raise FacekitError(
            f"{error}. Photos of real people need consent records, which this version does not "
            "have; so a generator takes only certified folders of people who don't exist, made by "
            "'facekit studio render' or 'facekit studio clip'"
        ) from error


def closed_file(name: str) -> Path:
    """``name`` as the path of a regular file that nobody is writing to.

    Raises:
        FacekitError: for a stream's address, a pipe, a device, a folder, or a growing file.
    """
    path = Path(name)
    rule = "input must be a finished file on disk, because live impersonation is not built here"
    if "://" in name:
        raise FacekitError(f"{name}: a stream's address; {rule}")
    try:
        before = path.stat()
    except OSError as error:
        raise FacekitError(f"{name}: not readable ({error.strerror})") from error
    if stat.S_ISDIR(before.st_mode):
        raise FacekitError(f"{name}: a folder; give one video or picture in it")
    if not stat.S_ISREG(before.st_mode):
        raise FacekitError(f"{name}: a pipe or device; {rule}")
    if time.time() - before.st_mtime < 1.0:
        # Written this very second: whoever writes it may not be done.
        time.sleep(1.0)
        if path.stat().st_size != before.st_size:
            raise FacekitError(f"{name}: still growing; {rule}")
    return path
