"""Find how many bytes compressed content unpacks to, if possible without unpacking it."""

from __future__ import annotations

import zlib
from bz2 import BZ2Decompressor

from napari_msgan.errors import FolderError

#: Codecs that compress; with others a chunk keeps its size, except for checksums.
PACKERS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2")
_BLOSC_HEADER = 16
_ZSTD_MAGIC, _ZSTD_SKIPPABLE = 0xFD2FB528, 0x184D2A50
_ZSTD_BLOCK = 1 << 17
#: Most streams of gzip or bzip2 in a chunk, as each one copies the rest of the content.
_MOST_STREAMS = 1000


def unpacked_bytes(content: bytes, codec: str, limit: int) -> int:
    """Return how many bytes compressed content unpacks to.

    A result above `limit` means only that there are more than `limit`: gzip, zlib and bz2 do not
    record the size, so they are unpacked, up to `limit` + 1 bytes.

    Raises
    ------
    FolderError
        If the codec would read beyond the end, or the content is not in its format.
    """
    match codec:
        case "blosc":
            # C-Blosc trusts the size in the header, and would read beyond the end.
            if len(content) < max(_BLOSC_HEADER, int.from_bytes(content[12:16], "little")):
                raise FolderError("it is shorter than its header says")
            return int.from_bytes(content[4:8], "little")
        case "lz4":  # as numcodecs writes it
            return int.from_bytes(content[:4], "little")
        case "zstd":
            return _zstd_bytes(content)
    return _stream_bytes(content, codec, limit)


def _stream_bytes(content: bytes, codec: str, limit: int) -> int:
    total = 0
    for _ in range(_MOST_STREAMS):
        is_bz2 = codec == "bz2"
        unpacker = BZ2Decompressor() if is_bz2 else zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            total += len(unpacker.decompress(content, limit + 1 - total))
        except (zlib.error, OSError):
            return total  # the error will be reported when it is unpacked
        content = unpacker.unused_data
        if total > limit or not unpacker.eof or not content:
            return total
    raise FolderError(f"it is packed in more than {_MOST_STREAMS} pieces")


def _zstd_bytes(content: bytes) -> int:
    """Return the size of all frames together; a close lower bound if a frame does not record it.

    References
    ----------
    .. [1] RFC 8878, Zstandard Compression, section 3.1: frames and the blocks in them.
    """
    total = at = 0
    while at < len(content):
        magic = int.from_bytes(content[at : at + 4], "little")
        if magic & ~15 == _ZSTD_SKIPPABLE:
            at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD_MAGIC or len(content) < at + 6:
            raise FolderError("it is not packed with Zstandard")
        flags = content[at + 4]
        is_single = bool(flags & 0x20)
        width = (int(is_single), 2, 4, 8)[flags >> 6]
        at += 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
        declared = int.from_bytes(content[at : at + width], "little") + 256 * (width == 2)
        in_blocks, at = _zstd_blocks(content, at + width)
        at += 4 * bool(flags & 4)  # its checksum
        total += declared if width else max(0, in_blocks - _ZSTD_BLOCK + 1)
    if at > len(content):
        raise FolderError("it ends in the middle of its Zstandard frame")
    return total


def _zstd_blocks(content: bytes, at: int) -> tuple[int, int]:
    """Return how many bytes the blocks of a frame unpack to at most, and where they end."""
    total, is_last = 0, False
    while not is_last:
        if at + 3 > len(content):
            raise FolderError("it ends in the middle of its Zstandard frame")
        header = int.from_bytes(content[at : at + 3], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        total += size if kind < 2 else _ZSTD_BLOCK  # stored, or one byte repeated
        at += 3 + (1 if kind == 1 else size)
    return total, at
