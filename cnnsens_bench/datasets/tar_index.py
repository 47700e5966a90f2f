"""Lists the members of tar files with their byte offsets, by reading headers alone. Nothing is unpacked."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reading import is_uri, read_range, size_and_version

RECORD = 512
LOCAL_BLOCK, REMOTE_BLOCK = 16 * 1024, 2 * 1024 * 1024
"""The bytes that are read at once where the next header is looked for."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"(\xb5/\xfd")
"""What files of gzip, bzip2, xz and zstd begin with."""
LONGEST_NAME = 1024 * 1024
"""The bytes above which a name is no name but damage."""


@dataclass(frozen=True)
class TarMember:
    """A file inside a tar file: where its bytes lie, and whether the tar file has all of them."""

    name: str
    offset: int
    size: int
    complete: bool = True


class TarReader:
    """The headers of a tar file, which is read block by block.

    Parameters
    ----------
    uri
        The path or URI of the tar file.

    Attributes
    ----------
    damage : str
        After `members`: what is wrong with the file's end, or an empty text.

    Raises
    ------
    UserError
        If the file does not exist.
    StorageError
        If its storage does not answer.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.damage = uri, ""
        try:
            self.size, self.version = size_and_version(uri)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"the shard {uri} does not exist: mend the pattern, or get it again") from None
        self._block = REMOTE_BLOCK if is_uri(uri) else LOCAL_BLOCK
        self._start, self._data = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """Return some bytes of the file, fewer where it ends."""
        if not self._start <= offset or offset + size > self._start + len(self._data):
            end = min(self.size, offset + max(size, self._block))
            self._start, self._data = offset, read_range(self.uri, offset, end)
        return self._data[offset - self._start : offset - self._start + size]

    def members(self) -> Iterator[TarMember]:
        """Yield the regular files of the tar file in their order.

        Raises
        ------
        UserError
            If the file is compressed, or is no tar file.
        """
        if is_uri(self.uri):
            read_range(self.uri, 0, 1)  # a server that sends whole files is found out here, not image by image
        position, name, size = 0, "", None
        while True:
            header = self.read(position, RECORD)
            if position == 0 and header.startswith(COMPRESSED):
                raise UserError(f"{self.uri} is compressed, so that no image in it can be read by itself: unpack it")
            if len(header) < RECORD:
                self.damage = "it is truncated" if header or position > self.size else "it has no end mark"
                return
            if not header.strip(b"\0"):
                return
            info = self._parsed(header, position)
            if info is None:
                self.damage = f"it is damaged at byte {position}"
                return
            data = position + RECORD
            length = info.size
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
                if length > LONGEST_NAME:
                    self.damage = f"it is damaged at byte {position}"
                    return
                content = self.read(data, length)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    name = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif info.type == tarfile.XHDTYPE:
                    records = _pax_records(content)
                    name = records.get("path", name)
                    size = int(records["size"]) if records.get("size", "").isdigit() else size
            else:
                length = length if size is None else size
                if info.isreg() and info.type != tarfile.GNUTYPE_SPARSE:
                    yield TarMember(name or info.name, data, length, data + length <= self.size)
                elif not info.isreg():
                    length = 0  # folders and links have no content, whatever their header says
                name, size = "", None
            position = data + -(-length // RECORD) * RECORD

    def _parsed(self, header: bytes, position: int) -> tarfile.TarInfo | None:
        try:
            return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            if position:
                return None
        raise UserError(f"{self.uri} is no tar file: leave it out, or get it again")


def _pax_records(content: bytes) -> dict[str, str]:
    """Return the records `<length> <key>=<value>` of a PAX header."""
    records = {}
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(content):
            break
        key, _, value = content[len(length) + 1 : int(length)].rstrip(b"\n").partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    return records
