"""Several files, and several parts of each, from a source to blobs at once, in bounded memory.

A worker that is free takes the next part of one of a few open files, in turn. It reads the part into a
buffer, hashes what is next in order, and sends it. Buffers are given out in the order of parts, so whoever
waits for one waits for somebody who can go on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence

from trainyard.errors import CorruptArtifact
from trainyard.hub_policy import HubFile
from trainyard.hub_reader import RangeIgnored
from trainyard.jobs.flow import Abandoned, Flow, Piece, UploadGone
from trainyard.jobs.progress import Progress
from trainyard.sources.base import Source
from trainyard.store import blobs
from trainyard.store.objects import Objects
from trainyard.store.parallel import Stop, run_all

# A stream takes about a tenth of a core; more of them than that only wait, and cost switches.
STREAMS = min(8, max(4, 2 * (os.cpu_count() or 1)))
OPEN_FILES = 4
# Each part is a request signed, sent and answered, which takes botocore some 5 ms.
PART_SIZE = 32 << 20
# Of all buffers. Parts grow with files of more than 300 GiB; two of the largest that there are still fit.
MEMORY = 160 << 20
log = logging.getLogger(__name__)


class Mirror:
    """sent_files, sent_bytes: what went to S3; what it held already is not counted."""

    def __init__(
        self,
        objects: Objects,
        source: Source,
        revision: str,
        progress: Progress,
        *,
        streams: int = STREAMS,
        part_size: int | None = None,
    ) -> None:
        self.objects, self.source, self.revision, self.progress = objects, source, revision, progress
        self.streams, self.part_size = streams, part_size or PART_SIZE
        self.stop = Stop()
        self.sent_files, self.sent_bytes = 0, 0
        self._files: deque[HubFile] = deque()
        self._open: deque[Flow] = deque()
        self._busy = 0
        self._left = MEMORY
        self._free: list[bytearray] = []
        self._changed = threading.Condition()

    def send(self, files: Sequence[HubFile]) -> None:
        """Make every file a blob; each has its digest. Raises what the source, S3 and the digests raise."""
        # The largest first: a small one at the end does not leave the others idle.
        self._files.extend(sorted(files, key=lambda file: -file.size))
        if files:
            run_all([self._work] * self.streams, self.streams, self.stop)

    def _work(self) -> None:
        while True:
            task = self._next()
            if task is None:
                return
            try:
                if isinstance(task, HubFile):
                    self._begin(task)
                else:
                    self._move(*task)
            except BaseException:
                self.stop.set()
                raise
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    def _next(self) -> HubFile | tuple[Flow, int, Piece] | None:
        """A file to begin, or a part and a buffer for it; None when all is done."""
        with self._changed:
            while True:
                self.stop.check()
                if self._files and len(self._open) < OPEN_FILES:
                    self._busy += 1
                    return self._files.popleft()
                if self._open:
                    flow = self._open[0]
                    size = flow.length(flow.handed)
                    if size <= self._left or self._left == MEMORY:
                        self._busy += 1
                        number, piece = flow.handed, Piece(self._buffer(size))
                        flow.handed += 1
                        flow.under_way += 1
                        self._open.rotate(-1)
                        if flow.is_handed_out:
                            self._open.remove(flow)
                        return flow, number, piece
                elif not self._busy and not self._files:
                    return None
                self._changed.wait(0.5)

    def _buffer(self, size: int) -> bytearray:
        self._left -= size
        fitting = next((index for index, one in enumerate(self._free) if len(one) == size), None)
        if fitting is not None:
            return self._free.pop(fitting)
        self._free.clear()  # of another file's parts
        return bytearray(size)

    def _give_back(self, piece: Piece) -> None:
        with self._changed:
            piece.uses -= 1
            if not piece.uses:
                self._left += piece.size
                if len(piece.buffer) == piece.size:
                    self._free.append(piece.buffer)
                self._changed.notify_all()

    def _begin(self, file: HubFile) -> None:
        if blobs.has_blob(self.objects, str(file.lfs_sha256), file.size):
            self.progress.skip(file.size)
            self.progress.finish_file()
        elif self.source.copy(self.objects, file):
            self.progress.add(file.size)
            self.progress.finish_file()
        else:
            self._enter(Flow(self.objects, file, self.source.reader(self.revision, file), self.part_size))

    def _enter(self, flow: Flow) -> None:
        with self._changed:
            self._open.append(flow)
            self._changed.notify_all()

    def _move(self, flow: Flow, number: int, piece: Piece) -> None:
        try:
            if flow.error is not None:
                raise Abandoned
            if flow.whole:
                chunks = self.source.stream(self.revision, flow.file)
                flow.move_all(chunks, piece, self.stop.check, self._give_back)
                self.progress.add(flow.file.size)
            else:
                self.progress.add(flow.move(number, piece, self.stop.check, self._give_back))
        except Abandoned:
            pass
        except (CorruptArtifact, RangeIgnored, UploadGone) as error:
            with self._changed:
                flow.error = flow.error or error
                if flow in self._open:
                    self._open.remove(flow)
        finally:
            self._give_back(piece)
        with self._changed:
            flow.under_way -= 1
            last = flow.under_way == 0 and flow.is_handed_out
        if last:
            self._end(flow)

    def _end(self, flow: Flow) -> None:
        """The last part of a flow was handled: make the blob visible, or begin anew."""
        flow.drop(self._give_back)
        if flow.error is None:
            try:
                flow.verify()
                if flow.upload is not None:
                    flow.upload.complete()
            except CorruptArtifact as error:
                flow.error = error
        if flow.error is not None:
            self._again(flow, flow.error)
            flow.moved = 0
        else:
            self.progress.finish_file()
        with self._changed:
            self.sent_bytes += flow.sent
            self.sent_files += 1 if flow.error is None and flow.sent else 0

    def _again(self, flow: Flow, error: Exception) -> None:
        self.progress.add(-flow.moved)
        upload, attempt, whole = flow.upload, flow.attempt, flow.whole
        if isinstance(error, RangeIgnored):
            log.warning("%s: the source ignores ranges; it is read in one stream.", flow.file.path)
            whole = True
        elif isinstance(error, UploadGone):
            if blobs.has_blob(self.objects, flow.digest, flow.file.size):
                log.info("%s: another writer of the same bytes was faster", flow.file.path)
                self.progress.skip(flow.file.size)
                self.progress.finish_file()
                return
            upload, attempt = None, attempt + 1
        else:
            attempt += 1
            log.warning("%s Fetching it again.", error)
        if attempt > 1:
            if upload is not None:
                upload.abort()
            if isinstance(error, UploadGone):
                raise CorruptArtifact(
                    f"{flow.file.path}: its upload was aborted twice while it ran. Find out who cleans up "
                    f"s3://{self.objects.bucket} so soon."
                ) from error
            raise error
        if upload is not None:
            if upload.is_gone:
                upload = None
            else:
                upload.restart()  # parts that were right are not sent again
        reader = self.source.reader(self.revision, flow.file)
        self._enter(
            Flow(
                self.objects, flow.file, reader, self.part_size,
                attempt=attempt, upload=upload, whole=whole,
            )
        )  # fmt: skip
