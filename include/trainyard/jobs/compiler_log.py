"""Reads what a compile says, line by line: which graphs were compiled or cached, how long each took, what
went wrong. Pure: lines and their times come from the caller.

The lines are those of libneuronxla's wrapper (`||NEURON_CC_WRAPPER||`, `||NCC_WRAPPER||`), of neuronx-cc, of
NxD's model builder and of the native plugin's cache. What is not known means nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["compiled", "cache", "failed", "unfinished"]

# Graphs of one model are some dozens; a log of other content must not fill the memory.
MOST_GRAPHS = 4096
MOST_CHARACTERS = 300

_MODULE = r"MODULE_[0-9A-Za-z]+\+[0-9A-Za-z]+"
_CALLED = re.compile(rf"Call compiler with cmd: .*?({_MODULE})")
# NxD compiles in <workdir>/<model key>/_tp0_bk<bucket>/.
_KEY = re.compile(rf"/(\w+)/_tp\d+_bk(\d+)/[^/\s]*?{_MODULE}")
_PASSED = re.compile(r"Compiler status PASS\b")
_FAILED = re.compile(rf"(?:Failed compilation with|Compilation failed for) .*?({_MODULE})")
_CACHED = re.compile(
    rf"Using a cached neff at (?:\S*/)?({_MODULE})|"
    r"(?:cache hit for key:?|local cache already populated:) ([0-9a-f]{32})\b"
)
# The native plugin names a graph by an MD5.
_LOCKED = re.compile(r"Acquired compilation lock for cache: (?:\S*/)?([0-9a-f]{32})\b")
_COMPLETE = re.compile(r"Compilation complete in (\d{1,9}(?:\.\d{1,9})?) seconds")
_POISONED = re.compile(r"Got a cached failed neff at (\S+?/model\.neff)")
_WAITS = re.compile(r"Another process must be compiling")
_WARNING = re.compile(r"\bWARN(?:ING)?\b")
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b|\b[A-Z]\w*Error\b")
# neuronx-cc numbers its own errors; a Python error before or after one says less.
_NUMBERED = re.compile(r"\bNCC_[A-Z]+\d+\b")


@dataclass(frozen=True)
class Graph:
    """name: MODULE_<hlo hash>+<flags hash>, or an MD5 of the native plugin's; key: the model builder's name
    of it, or ""; seconds: of its compilation, where it ended. Of several at once the one that began first
    gets the first PASS."""

    name: str
    key: str
    origin: Origin
    seconds: float | None = None


@dataclass(frozen=True)
class Summary:
    """graphs: in order of appearance; poisoned: paths of the failed entries that the compiler met."""

    graphs: tuple[Graph, ...]
    warnings: int
    errors: int
    first_error: str | None
    poisoned: tuple[str, ...]

    def count(self, origin: Origin) -> int:
        return sum(graph.origin == origin for graph in self.graphs)

    @property
    def from_scratch(self) -> bool:
        """Nothing came from a cache, as far as the log tells: its time may be learned from."""
        return self.count("cache") == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "compiled": self.count("compiled"),
            "cached": self.count("cache"),
            "seconds": {
                graph.key or graph.name: round(graph.seconds, 1)
                for graph in self.graphs
                if graph.seconds is not None
            },
            "warnings": self.warnings,
            "first_error": self.first_error,
        }

    def lines(self) -> list[str]:
        """For people: a line of totals, one a graph, the first error."""
        parts = [f"{self.count('compiled')} compiled", f"{self.count('cache')} from the cache"]
        parts += [
            f"{self.count(origin)} {origin}" for origin in ("failed", "unfinished") if self.count(origin)
        ]
        told = [f"graphs: {', '.join(parts)}; {self.warnings} warning(s), {self.errors} error line(s)"]
        for graph in self.graphs[:50]:
            how = "from the cache" if graph.origin == "cache" else graph.origin
            took = f" in {graph.seconds:.1f} s" if graph.seconds is not None else ""
            told.append(f"  {graph.key + ' ' if graph.key else ''}{graph.name}: {how}{took}")
        if self.first_error:
            told.append(f"first error: {self.first_error}")
        return told


class CompilerLog:
    """Takes the lines of a compile as they come. `at`: seconds by any clock that only grows."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}
        self._began: dict[str, float] = {}
        self._warnings = self._errors = 0
        self._first: str | None = None
        self._numbered: str | None = None
        self._poisoned: dict[str, None] = {}
        # When the compiler said first that it waits for another one, with nothing done since.
        self.waiting_since: float | None = None

    def take(self, line: str, at: float) -> None:
        self._count(line)
        if found := _POISONED.search(line):
            if len(self._poisoned) < MOST_GRAPHS:
                self._poisoned[found[1]] = None
            return
        if _WAITS.search(line):
            self.waiting_since = at if self.waiting_since is None else self.waiting_since
            return
        if found := _CALLED.search(line):
            key = _KEY.search(line)
            self._begin(found[1], f"{key[1]}[{key[2]}]" if key else "", at)
        elif found := _LOCKED.search(line):
            self._begin(found[1], "", at)
        elif found := _FAILED.search(line):
            self._end(found[1], "failed", at)
        elif found := _CACHED.search(line):
            self._hit(found[1] or found[2])
        elif found := _COMPLETE.search(line):
            running = next(iter(self._began), None)
            if running is not None:
                self._end(running, "compiled", self._began[running] + float(found[1]))
        elif _PASSED.search(line):
            running = next(iter(self._began), None)
            if running is not None:
                self._end(running, "compiled", at)

    def summary(self) -> Summary:
        return Summary(
            tuple(self._graphs.values()),
            self._warnings,
            self._errors,
            self._numbered or self._first,
            tuple(self._poisoned),
        )

    def _begin(self, name: str, key: str, at: float) -> None:
        self.waiting_since = None
        if name in self._graphs or len(self._graphs) < MOST_GRAPHS:
            self._graphs[name] = Graph(name, key, "unfinished")
            self._began[name] = at

    def _hit(self, name: str) -> None:
        """Compiled before in this very run is compiled."""
        self.waiting_since = None
        self._began.pop(name, None)
        old = self._graphs.get(name)
        if (old is None and len(self._graphs) < MOST_GRAPHS) or (old and old.origin == "unfinished"):
            self._graphs[name] = Graph(name, "", "cache")

    def _end(self, name: str, origin: Origin, at: float) -> None:
        self.waiting_since = None
        old = self._graphs.get(name)
        if old is None or old.origin in ("compiled", "cache"):
            return
        began = self._began.pop(name, None)
        seconds = old.seconds if began is None else max(0.0, at - began)
        self._graphs[name] = Graph(name, old.key, origin, seconds)

    def _count(self, line: str) -> None:
        if _ERROR.search(line):
            self._errors += 1
            self._first = self._first or line.strip()[:MOST_CHARACTERS]
            if self._numbered is None and _NUMBERED.search(line):
                self._numbered = line.strip()[:MOST_CHARACTERS]
        elif _WARNING.search(line):
            self._warnings += 1
