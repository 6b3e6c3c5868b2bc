"""Make several components at the same time: builds, downloads and archives each have a lane of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from stackbook.artifacts.build_queue import free_memory, places
from stackbook.artifacts.builder import Maker
from stackbook.artifacts.sources import Build, Pages
from stackbook.artifacts.store import Entry
from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.errors import StackbookError


class Lanes:
    """One call of `ensure`, with three lanes: compiling needs the processors, downloading the network, assembling both."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        workers = {"build": places(os.cpu_count() or 1, free_memory()), "download": 3, "assemble": 1}
        self._lanes = {lane: ThreadPoolExecutor(count, lane) for lane, count in workers.items()}
        self._futures: dict[tuple[str, str], Future[Entry]] = {}

    def run(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Make what is missing of these (kind, name), and wait until all of it has ended; see `Resolver.ensure`."""
        self._maker.cancel.clear()
        failure: StackbookError | None = None
        try:
            for kind, name in wanted:
                self._want(kind, name)
            for future in list(self._futures.values()):
                try:
                    while not future.done():
                        threading.Event().wait(0.02)
                    future.result()
                except StackbookError as error:
                    failure = failure or error
        except BaseException:
            self._maker.cancel.set()
            raise
        finally:
            for lane in self._lanes.values():
                lane.shutdown(wait=True, cancel_futures=self._maker.cancel.is_set())
        if failure:
            raise failure

    def _want(self, kind: str, name: str) -> Future[Entry]:
        known = self._futures.get((kind, name))
        if known is not None:
            return known
        if kind == "file":
            future = self._lanes[self._lane(name)].submit(self._checked, lambda: self._maker.file(name))
        else:
            members = self._maker.catalogue.members(kind, name)
            parts = [file for image in members for file, _ in image.files]
            parts += self._maker.catalogue.roots(members)
            needed = [self._want("file", part) for part in dict.fromkeys(parts)]
            future = self._lanes["assemble"].submit(self._checked, lambda: self._assembled(kind, name, needed))
        self._futures[kind, name] = future
        return future

    def _assembled(self, kind: str, name: str, needed: list[Future[Entry]]) -> Entry:
        for future in needed:
            future.result()
        return self._maker.archive(f"{kind}:{name}", self._maker.catalogue.members(kind, name))

    def _checked(self, work: Callable[[], Entry]) -> Entry:
        if self._maker.cancel.is_set():
            raise Cancelled
        return work()

    def _lane(self, name: str) -> str:
        recipes = self._maker.usable(self._maker.catalogue.artifact(name))
        return "build" if recipes and isinstance(recipes[0][0], Build | Pages) else "download"
