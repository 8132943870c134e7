"""How a picture or video was made and stored: what its file says, and what that hints at.

Nothing here proves anything by itself: metadata can be written by anyone, and an honest file that
was sent through a messenger has lost all of it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hint(_Facts):
    """Something that an examiner should know."""

    code: Literal[
        "edited_with",
        "encoder",
        "camera",
        "recompressed",
        "tables_not_standard",
        "times_irregular",
        "frames_missing",
        "keyframes_irregular",
        "dates_differ",
        "thumbnail_differs",
        "no_metadata",
    ] = Field(description="Stable name, for programs.")
    text: str = Field(description="In plain words, and no more than the file supports.")


class Gap(_Facts):
    """A moment at which frames are missing."""

    time: float = Field(ge=0, description="Seconds from the start.")
    seconds: float = Field(gt=0, description="To the next frame.")


class PictureFacts(_Facts):
    """How a picture is stored."""

    mode: str = Field(description="Pillow's name of its colours, e.g. RGB.")
    progressive: bool
    quality: int | None = Field(
        ge=1, le=100, description="Of the JPEG standard's tables nearest to its own; null if none."
    )
    tables: Literal["standard", "custom"] | None = Field(
        description="Whether its JPEG tables are the standard's, scaled; null if it has none."
    )
    tables_sha256: str | None = Field(description="Of the tables: the same for the same encoder.")
    subsampling: str | None = Field(description="Of the colours, e.g. 4:2:0.")
    profile: str | None = Field(description="Name of the colour profile.")
    thumbnail: bool = Field(description="Whether a smaller picture of it lies inside.")


class VideoFacts(_Facts):
    """How a video is stored; times are in seconds."""

    profile: str | None
    pixels: str = Field(description="FFmpeg's name of the pixel format.")
    bit_rate: int | None = Field(description="Bits per second, of pictures alone.")
    frames: int = Field(ge=0, description="Packets of pictures in the file.")
    interval: float | None = Field(description="Median time between two frames.")
    irregular: int = Field(ge=0, description="Intervals that differ from it by over a tenth.")
    gaps: list[Gap] = Field(description="The longest pauses, at most 20.")
    keyframes: int = Field(ge=0)
    gop: tuple[float, float, float] | None = Field(
        description="Frames from keyframe to keyframe: the least, the median, the most."
    )
    encoder: str | None = Field(description="Who encoded it, as it says.")
    audio: str | None = Field(description="The sound's codec.")


class MediaFacts(_Facts):
    """All of it."""

    format: str = Field(description="What the content is, whatever its name ends in.")
    suffix_fits: bool = Field(description="Whether the name's ending is one of that format.")
    picture: PictureFacts | None = None
    video: VideoFacts | None = None
    metadata: dict[str, str] = Field(description="Tags of the container, and EXIF's, by name.")
    hints: list[Hint]
