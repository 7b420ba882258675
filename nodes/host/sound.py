"""The sound of a VIDEO of the host."""

from ...histream_core.video.formats import Format
from ...histream_core.video.sound import check_sound, pack_sound
from .api import InputImpl


def sound_of(video, format: Format) -> bytes:
    """The sound of a VIDEO within its trim, packed, for files of that format.

    Raises ValueError or OSError for one that is in no file, and for a format that cannot hold it.
    """
    if isinstance(video, InputImpl.VideoFromComponents):
        raise ValueError("the sound of that VIDEO is in no file yet: connect Load Video, or save it and load it again")
    source = video.get_stream_source()
    check_sound(source, format)
    start, duration = video.get_active_trim_window()
    return pack_sound(source, start=start, duration=duration)
