"""Object files: what is too large for a row, in `<store>.objects/`.

Invariant: a file is named by its content (BLAKE3), ends with its name, and is never
changed. It is written under another name, synced, renamed, and its folder synced before
anybody learns of it, so a row that names it comes after it on the disk; one that no row
names is harmless. What is unpickled is read once into memory of this process's own, and
compared with its digest there: the bytes that were checked are the bytes that are used. Any
other piece is given as a private, copy-on-write memory map of its file, whose length and end
are looked at first (a file that is shorter than its map kills the process, and one that was
exchanged for another would be a wrong value), and only where nobody else can write to the
file; elsewhere it is read and compared, too, and so is, everywhere, what says where other
things lie (`nbdurable.codec.pointers`). No link is followed, no pipe is opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import secrets
import stat
import struct
import tempfile
import threading
import weakref
from collections.abc import Callable  # noqa: TC003 - a module's annotation is read at run time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from blake3 import blake3

from nbdurable.errors import DecodeError, StoreError

from .disk import file_error
from .files import below, is_object, refuse_linked_folder, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

_ALIGNMENT = 64  # bytes: a cache line, and what Arrow and vector instructions ask for
_CHUNK = 1 << 20  # bytes hashed and written in turn, so that they are still in the core's cache
_DIGEST = 32  # bytes
_PIECE = struct.Struct(f">{_DIGEST}sQQ{_DIGEST}s")
_LEADS = 1 << 63  # beside the offset

# Called with the bytes of a file written so far, after each chunk; `nbdurable.testing`
# kills the process here.
write_hook: Callable[[int], None] | None = None


class Piece(NamedTuple):
    """Where a buffer lies, its length in bytes, and the digest of its content.

    One that ``leads`` says where other things lie: it is compared whenever it is used.
    """

    file: bytes
    offset: int
    length: int
    digest: bytes
    leads: bool = False


class Objects:
    """One store's object files; without a folder they lie in one that ends with the store."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._owner = 0  # the kernel whose drafts these are; nothing for this process's own
        self._shared: tuple[str, str] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._ready = False
        self._preparing = threading.Lock()
        self._known: dict[bytes, Piece] = {}
        self._compared: dict[tuple[bytes, int], tuple[int, ...]] = {}  # pieces, by their files then
        self._named: dict[bytes, int] = {}  # how many values name a file that was written here
        self._naming = threading.Lock()

    @classmethod
    def of_worker(cls, folder: Path, kernel: int) -> Objects:
        """Return what writes values in a worker of a kernel, by its pid: it removes nothing."""
        made = cls(folder)
        made._owner, made._ready = kernel, True
        return made

    def shared(self) -> tuple[str, str]:
        """Return the folder, and a file in it by which a worker knows that it sees this one.

        Raises:
            StoreError: They can't be made.
        """
        if self._shared and os.path.exists(os.path.join(*self._shared)):  # noqa: PTH110, PTH118
            return self._shared
        with _store_errors("made", self._folder or Path(tempfile.gettempdir())), self._preparing:
            if not self._ready or (self._folder is not None and not self._folder.is_dir()):
                self._prepare()
            probe = self.draft()
            probe.touch()
            self._shared = str(probe.parent.absolute()), probe.name
            return self._shared

    def close(self) -> None:
        """Remove a folder that was to end with the store, and what workers knew it by."""
        if self._shared:
            with contextlib.suppress(OSError):  # the next owner removes it
                Path(*self._shared).unlink(missing_ok=True)
        if self._temporary is not None:
            self._temporary.cleanup()

    def remember(self, pieces: bytes) -> None:
        """Take in what a row names, signed or not: its content need not be written again."""
        if len(pieces) % _PIECE.size == 0:
            self._known.update((piece.digest, piece) for piece in _unpack(pieces))

    def spare(self, rows: Iterable[bytes]) -> list[Path]:
        """Return the files that none of the rows with these pieces names; drafts are such, too."""
        if self._folder is None or not self._folder.is_dir():
            return []
        refuse_linked_folder(self._folder)
        used = {piece.file.hex() for pieces in rows for piece in _unpack(pieces)}
        found = (one for one in self._folder.iterdir() if is_object(one.name))
        return sorted(one for one in found if one.name not in used and not one.is_dir())

    def path(self, file: bytes) -> Path:
        """Return the path of an object file by its digest."""
        assert self._folder is not None, "pieces come from a folder"
        return self._folder / file.hex()

    def writer(self) -> ObjectWriter:
        """Return what writes the buffers of one value.

        Raises:
            StoreError: The folder can't be made.
        """
        with _store_errors("made", self._folder or Path(tempfile.gettempdir())), self._preparing:
            if not self._ready or (self._folder is not None and not self._folder.is_dir()):
                self._prepare()
            if self._owner and self._folder is not None:
                self._folder = self._folder.resolve()  # a worker may reach it by another way
        return ObjectWriter(self)

    def restore(self, pieces: bytes, *, proven: int = 0) -> list[memoryview]:
        """Return the buffers, writable, in memory that is this caller's own.

        Args:
            pieces: What a writer gave; its signature has been verified.
            proven: So many of them, from the first, are compared with their digest.

        Raises:
            DecodeError: A file is missing, too short, or not what was written.
            StoreError: It can't be read.
        """
        found = _unpack(pieces)
        ends = _ends(found)
        maps: dict[bytes, tuple[memoryview, bool]] = {}
        given: set[tuple[bytes, int]] = set()
        views = []
        for number, piece in enumerate(found):
            place = (piece.file, piece.offset)
            try:
                if number < proven:
                    views.append(self._read(piece))
                    continue
                # What changes one buffer must not change another of the same content.
                if piece.file not in maps or place in given:
                    maps[piece.file] = self._map(piece.file, ends[piece.file])
                whole, is_safe = maps[piece.file]
                view = whole[piece.offset : piece.offset + piece.length]
                if piece.leads or not is_safe:
                    _refuse_other(piece, view)
            except _Fault as fault:
                raise _unrestorable(fault) from None
            given.add(place)
            views.append(view)
        return views

    def fault(self, pieces: bytes, *, proven: int = 0) -> str:
        """Say why these pieces can't be restored; nothing if they can. As `restore`.

        Raises:
            StoreError: A file is there and can't be read.
        """
        if len(pieces) % _PIECE.size:
            return "it does not say where its object files are"  # nobody has signed this
        found = _unpack(pieces)
        foreign = set()
        for file, end in _ends(found).items():
            try:
                with self._opened(file, end) as (descriptor, _):
                    if not _is_mine(os.fstat(descriptor)):
                        foreign.add(file)
            except _Fault as fault:
                return str(fault)
        compared = [
            one for at, one in enumerate(found) if at < proven or one.leads or one.file in foreign
        ]
        return next(filter(None, map(self._other_content, compared)), "")

    def reused(self, digest: bytes, length: int, files: set[bytes]) -> Piece | None:
        """Return the piece that has this content already, if it still has.

        Its file joins those that the value names, and stays as long as it does.
        """
        piece = self._known.get(digest)
        if piece is None or piece.length != length or not self._is_whole(piece):
            return None
        with self._naming:
            if self._known.get(digest) != piece:
                return None  # it was given up meanwhile
            if piece.file in self._named and piece.file not in files:
                self._named[piece.file] += 1
        files.add(piece.file)
        return piece

    def knows_one_of(self, length: int) -> bool:
        """Tell whether some buffer of this length is there, so that it is worth hashing one."""
        return any(piece.length == length for piece in list(self._known.values()))

    def _is_whole(self, piece: Piece) -> bool:
        """Tell whether a piece has its content: its file is as when that was last compared."""
        try:
            with self._opened(piece.file, piece.offset + piece.length) as (descriptor, _):
                now = _stamp(os.fstat(descriptor))
        except _Fault:
            return False
        place = piece.file, piece.offset
        if self._compared.get(place) == now:
            return True
        if self._other_content(piece):
            return False
        self._compared[place] = now
        return True

    def give_up(self, pieces: bytes) -> None:
        """Remove the files of a value that no row names any more, and no other value.

        Only those that were written here, under a name that was free: of others nobody
        here knows all who name them, and `spare` finds them.
        """
        with self._naming:
            for file in {piece.file for piece in _unpack(pieces)} & self._named.keys():
                self._named[file] -= 1
                if self._named[file]:
                    continue
                del self._named[file]
                for digest in [one for one, piece in self._known.items() if piece.file == file]:
                    del self._known[digest]
                with contextlib.suppress(OSError, StoreError):  # `spare` finds it
                    remove(self.path(file))

    def _other_content(self, piece: Piece) -> str:
        """Say how the content of a piece differs from what was written; nothing if it is that."""
        at, end, content = piece.offset, piece.offset + piece.length, blake3()
        try:
            with self._opened(piece.file, end) as (descriptor, _):
                while at < end:
                    chunk = os.pread(descriptor, min(end - at, _CHUNK), at)
                    if not chunk:
                        return f"object file {_short(piece.file)} is cut short"
                    content.update(chunk)
                    at += len(chunk)
        except _Fault as fault:
            return str(fault)
        same = content.digest() == piece.digest
        return "" if same else f"object file {_short(piece.file)} has another content"

    def _read(self, piece: Piece) -> memoryview:
        """Return a piece in memory of its own, in which it was compared with its digest."""
        with self._opened(piece.file, piece.offset + piece.length) as (descriptor, _):
            content = _read_from(piece.file, descriptor, piece.offset, piece.length)
        _refuse_other(piece, content)
        return content

    def _map(self, file: bytes, end: int) -> tuple[memoryview, bool]:
        """Return a whole file, and whether nobody else can change what is seen of it."""
        with self._opened(file, end) as (descriptor, length):
            if not _is_mine(os.fstat(descriptor)):
                return _read_from(file, descriptor, 0, length), False
            mapped = _private_map(descriptor, length)
            return mapped or _read_from(file, descriptor, 0, length), True

    @contextlib.contextmanager
    def _opened(self, file: bytes, end: int) -> Iterator[tuple[int, int]]:
        """Open a file that is whole and its name's own, as far as its length and its end tell."""
        with _faults(file):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path(file), flags)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise _Fault(f"object file {_short(file)} is no regular file")
                length = found.st_size
                _refuse_short(file, length, end + _DIGEST)
                if os.pread(descriptor, _DIGEST, length - _DIGEST) != file:
                    raise _Fault(f"object file {_short(file)} has another end")
                yield descriptor, length
            finally:
                os.close(descriptor)

    def _prepare(self) -> None:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="nbdurable-")
            self._folder = Path(self._temporary.name).resolve()
        refuse_linked_folder(self._folder)
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder.parent)
        # One process at a time has a store: what others were writing, they died over.
        for draft in self._folder.glob("*.draft"):
            if is_object(draft.name) and not draft.name.startswith(f"{os.getpid()}-"):
                remove(draft.absolute())
        self._ready = True

    def draft(self) -> Path:
        """Return a name that no other file has."""
        assert self._folder is not None, "a writer comes from a folder that is there"
        return self._folder / f"{self._owner or os.getpid()}-{secrets.token_hex(8)}.draft"

    def keep(
        self, draft: Path, folder: int, file: bytes, pieces: dict[bytes, Piece]
    ) -> dict[bytes, Piece]:
        """Give a synced draft in a folder its name, durably; return its pieces with that name."""
        kept = {digest: piece._replace(file=file) for digest, piece in pieces.items()}
        with self._naming:
            if file in self._named or not self.path(file).exists():
                self._named[file] = self._named.get(file, 0) + 1
            # One of that name may be there; this one is known to be whole.
            os.rename(draft.name, file.hex(), src_dir_fd=folder, dst_dir_fd=folder)
            self._known.update(kept)
            now = _stamp(self.path(file).stat())
            self._compared.update({(file, piece.offset): now for piece in kept.values()})
        sync_folder(draft.parent)
        return kept


class ObjectWriter:
    """The buffers of one value on their way into one file: `write`, then `end` for each.

    A buffer that a file of the store holds is not kept twice, unless two values that
    differ otherwise are written at one moment. After the ``with`` block all is durable,
    and `pieces` says where; if it raised, nothing is left.
    """

    def __init__(self, objects: Objects) -> None:
        self.pieces = b""
        self._objects = objects
        self._pieces: list[Piece] = []
        self._new: dict[bytes, Piece] = {}  # by digest: what no other file holds
        self._files: set[bytes] = set()  # files of others that hold some of it
        self._draft = objects.draft()
        self._start = self._at = self._end = 0
        self._content = blake3()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, _store_errors("written", self._draft.parent):
            self._folder = stack.enter_context(below(self._draft.parent.absolute()))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._draft.name, flags, 0o600, dir_fd=self._folder)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with _store_errors("written", self._draft.parent):
                file = _name(self._new.values())
                try:
                    if error is None and self._new:
                        os.pwrite(self._descriptor, file, self._end)
                        os.fsync(self._descriptor)
                finally:
                    os.close(self._descriptor)
                if error is None:
                    self._keep(file)
        finally:
            with self._open, contextlib.suppress(FileNotFoundError):
                os.unlink(self._draft.name, dir_fd=self._folder)

    def write(self, data: memoryview) -> None:
        """Add bytes to the present buffer, without a copy of them.

        Raises:
            StoreFullError: The disk is full.
            StoreError: They can't be written.
        """
        with _store_errors("written", self._draft.parent):
            for first in range(0, data.nbytes, _CHUNK):
                self._write(data[first : first + _CHUNK])

    def put(self, data: memoryview, *, leads: bool = False) -> None:
        """Add a whole buffer; one that a file of the store holds is hashed and not written.

        With `leads` it is compared whenever it is used, as by `end`.

        Raises:
            StoreFullError: The disk is full.
            StoreError: It can't be written.
        """
        if self._objects.knows_one_of(data.nbytes):
            digest = blake3(data).digest()
            piece = self._new.get(digest)
            piece = piece or self._objects.reused(digest, data.nbytes, self._files)
            if piece is not None:
                self._pieces.append(piece._replace(leads=leads))
                return
        self.write(data)
        self.end(leads=leads)

    def _write(self, chunk: memoryview) -> None:
        self._content.update(chunk)
        first = self._at
        while chunk.nbytes:
            written = os.pwrite(self._descriptor, chunk, self._at)
            self._at += written
            chunk = chunk[written:]
        if hasattr(os, "posix_fadvise"):
            # The disk begins to write now, and not when all is to be synced.
            os.posix_fadvise(self._descriptor, first, self._at - first, os.POSIX_FADV_DONTNEED)
        if write_hook is not None:
            write_hook(self._at)

    def end(self, *, leads: bool = False) -> None:
        """End the present buffer; with `leads` it is compared whenever it is used.

        Raises:
            StoreError: The file can't be written.
        """
        length, digest = self._at - self._start, self._content.digest()
        piece = self._new.get(digest) or self._objects.reused(digest, length, self._files)
        if piece is None:
            piece = self._new[digest] = Piece(b"", self._start, length, digest)
            self._end = self._at
        else:
            with _store_errors("written", self._draft.parent):
                os.ftruncate(self._descriptor, self._end)
        self._start = self._at = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        self._pieces.append(piece._replace(leads=leads))
        self._content = blake3()

    def _keep(self, file: bytes) -> None:
        kept = {}
        if self._new:
            kept = self._objects.keep(self._draft, self._folder, file, self._new)
        places = [
            kept.get(piece.digest, piece)._replace(leads=piece.leads) for piece in self._pieces
        ]
        self.pieces = b"".join(map(_packed, places))


class _Fault(Exception):  # noqa: N818 - why something can't be restored, for who says it
    """A file is not what a row says of it."""


def _unpack(pieces: bytes) -> list[Piece]:
    return [
        Piece(file, offset & ~_LEADS, length, digest, bool(offset & _LEADS))
        for file, offset, length, digest in _PIECE.iter_unpack(pieces)
    ]


def _packed(piece: Piece) -> bytes:
    offset = piece.offset | (_LEADS if piece.leads else 0)
    return _PIECE.pack(piece.file, offset, piece.length, piece.digest)


def _unrestorable(fault: object) -> DecodeError:
    return DecodeError(
        f"the saved value can't be restored: {fault}; run the cell again, and its step runs again"
    )


def _name(pieces: Iterable[Piece]) -> bytes:
    return blake3(b"".join([b"%d:%b" % (one.length, one.digest) for one in pieces])).digest()


def _ends(pieces: list[Piece]) -> dict[bytes, int]:
    """Return how long each file must be."""
    ends: dict[bytes, int] = {}
    for piece in pieces:
        ends[piece.file] = max(ends.get(piece.file, 0), piece.offset + piece.length)
    return ends


def _refuse_short(file: bytes, length: int, end: int) -> None:
    if length < end:
        raise _Fault(f"object file {_short(file)} is cut short")


def _short(file: bytes) -> str:
    return file.hex()[:12]


@contextlib.contextmanager
def _faults(file: bytes) -> Iterator[None]:
    """Tell a file that is gone, which its step can make again, from one that can't be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise _Fault(f"object file {_short(file)} is missing") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _Fault(f"object file {_short(file)} is a link") from None
        raise StoreError(
            f"object file {error.filename or _short(file)} can't be read: "
            f"{error.strerror or error}; nothing was changed: make it readable and run the cell "
            f"again"
        ) from error


@contextlib.contextmanager
def _store_errors(done: str, folder: Path) -> Iterator[None]:
    """Raise as a store's error, with the cure, what the system says about a file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        cure = (
            "its folder was removed or moved; put it back and run the cell again to resume, or run "
            "the cell again without it to start anew"
            if isinstance(error, FileNotFoundError)
            else "make its folder writable, or name another store with configure(store=...) or "
            "NBDURABLE_STORE"
        )
        raise file_error(
            error,
            folder,
            f"a large value's file {error.filename or f'in {folder}'} could not be {done}: "
            f"{reason}; {cure}",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- memory maps -----------------------------------------------------------------------
#
# The standard library's keep a descriptor open each (up to Python 3.12, for good), and a
# notebook may hold thousands of large values; the system allows a thousand descriptors.

_system = ctypes.CDLL(None, use_errno=True)
_mmap = _system.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
)  # fmt: skip
_munmap = _system.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


def _private_map(descriptor: int, length: int) -> memoryview | None:
    """Map a file copy-on-write, until the last view of it is gone; None if that can't be had."""
    address = _mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, 0)
    if address == _FAILED:
        return None
    block = (ctypes.c_ubyte * length).from_address(address)
    # At the interpreter's end arrays may still be in use: the system unmaps then.
    weakref.finalize(block, _munmap, address, length).atexit = False
    return memoryview(block).cast("B")


def _read_from(file: bytes, descriptor: int, first: int, length: int) -> memoryview:
    """Return a part of a file in memory of its own."""
    found = memoryview(bytearray(length))
    at = 0
    while at < length and (count := os.preadv(descriptor, [found[at:]], first + at)):
        at += count
    _refuse_short(file, at, length)
    return found


def _refuse_other(piece: Piece, content: memoryview) -> None:
    if blake3(content).digest() != piece.digest:
        raise _Fault(f"object file {_short(piece.file)} has another content")


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    """Return what is another after a file was written to or exchanged."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_mine(found: os.stat_result) -> bool:
    """Tell whether a file is this user's, and nobody else may write to it."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
