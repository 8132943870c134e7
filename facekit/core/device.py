"""Device, precision and threads, resolved once in the command through Lightning Fabric.

This is the only file that knows device names. Bits depend on the number of threads, so it is
pinned here and recorded in the run folder. docs/design.md says what has been run on a GPU.

Of several processes (``--devices N``) each runs the whole command, on its share of the cores or on
a GPU of its own. The first one speaks and writes; the others are silent.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from facekit.core.errors import FacekitError, did_you_mean

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"auto": "", "32": "32-true", "bf16": "bf16-mixed"}
"""``auto`` is bf16 where the hardware multiplies it, else 32."""


def default_threads() -> int:
    """Threads to use where the user names no number: the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def setup(
    device: str = "auto", precision: str = "32", threads: int | None = None, count: int = 1
) -> "Fabric":
    """Resolve where and how to compute, pin torch's thread count, and start the other processes.

    Args:
        device: one of ``DEVICES``.
        precision: one of ``PRECISIONS``: ``32``, ``bf16`` (autocast; penalties, warps and
            keypoint grids stay in float32), or ``auto``.
        threads: torch threads of each process; ``None`` shares every core among them.
        count: processes, ≥ 1: one a GPU, or, on the processor, at most one a core. The others are
            started as the same command; a loop shares its batch by ``fabric.global_rank`` of
            ``fabric.world_size``, and only ``fabric.is_global_zero`` writes.

    Raises:
        FacekitError: for an unknown name, or a device that is not there.
    """
    if precision not in PRECISIONS:
        raise FacekitError(
            f"unknown precision '{precision}'; {did_you_mean(precision, PRECISIONS)}"
        )
    where = resolve(device, threads, count)
    pinned = torch.get_num_threads()
    # It brings torch's compiler along, which takes longer than all else; who looks at faces in a
    # process of many needs neither.
    from lightning_fabric import Fabric

    # Fabric announces the precision at every set-up, also under -q.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(device) else "32"
    fabric = Fabric(
        accelerator=where.type,
        devices=count,
        strategy="ddp" if count > 1 else "auto",
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
    )
    if count > 1:
        logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    fabric.launch()
    torch.set_num_threads(pinned)  # starting the others changes it
    if not fabric.is_global_zero:
        logging.getLogger("facekit").setLevel(logging.ERROR)
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")
    return fabric


def resolve(device: str = "auto", threads: int | None = None, count: int = 1) -> torch.device:
    """Where to compute, for who needs no more of :func:`setup`; it pins torch's thread count.

    Args:
        device: one of ``DEVICES``.
        threads: torch threads of each process; ``None`` shares every core among them.
        count: processes.

    Raises:
        FacekitError: for an unknown name, or a device that is not there.
    """
    if device not in DEVICES:
        raise FacekitError(f"unknown device '{device}'; {did_you_mean(device, DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise FacekitError("--device cuda: no CUDA device is available; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise FacekitError("--device mps: no Apple GPU is available; use --device cpu")
    if threads is not None and threads < 1:
        raise FacekitError(f"--threads {threads}: at least 1; leave it out to use every core")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        device = "mps" if torch.backends.mps.is_available() else device
    there, what = _there(device)
    if not 1 <= count <= there:
        raise FacekitError(f"--devices {count}: 1 to {there} can be used here ({there} {what})")
    torch.set_num_threads(threads or max(1, default_threads() // count))
    return torch.device(device)


def _there(device: str) -> tuple[int, str]:
    """How many processes ``device`` can serve, and what it is that there are so many of."""
    if device == "cuda":
        return torch.cuda.device_count(), "CUDA devices"
    if device == "mps":
        return 1, "Apple GPU"
    cores = default_threads()
    return cores, "processor cores" if cores > 1 else "processor core"


def on_host(device: torch.device) -> bool:
    """Whether a tensor there lies in the processor's own memory, where numpy sees it too."""
    return device.type == "cpu"


def name_of(device: torch.device) -> str:
    """What computes there, for the record: the GPU's name, or how many threads of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


def precision_of(fabric: "Fabric") -> str:
    """The resolved precision, by Fabric's name: results depend on it, so runs record it."""
    return str(fabric.strategy.precision.precision)


def _multiplies_bf16(device: str) -> bool:
    """Whether bf16 is faster than float32: elsewhere it is emulated, and slower."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch offers no public question for the processor's instructions.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device in ("auto", "cpu") and supported is not None and bool(supported())
