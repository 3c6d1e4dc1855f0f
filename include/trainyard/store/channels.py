"""A model's channel: which release is stable now, and which was before. Moved by compare-and-swap only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from trainyard.errors import Conflict, LeaseLost
from trainyard.store import keys
from trainyard.store.documents import SCHEMA, decode, encode, take, take_optional, timestamp
from trainyard.store.objects import Objects
from trainyard.store.tokens import current_token

ATTEMPTS = 12
KEPT_MOVES = 100


@dataclass(frozen=True)
class Move:
    """One past move: which release became stable, under which lease token, when (RFC 3339)."""

    release: str
    token: int
    at: str


@dataclass(frozen=True)
class Channel:
    """stable: release that takes the traffic; previous: the one before it; token: newest lease token seen;
    history: oldest move first."""

    model: str
    stable: str | None = None
    previous: str | None = None
    token: int = 0
    updated_at: str = ""
    history: tuple[Move, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.model,
            "stable": self.stable,
            "previous": self.previous,
            "token": self.token,
            "updated_at": self.updated_at,
            "history": [
                {"release": move.release, "token": move.token, "at": move.at} for move in self.history
            ],
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> Channel:
        moves = take(document, "history", list, where)
        return Channel(
            model=take(document, "model", str, where),
            stable=take_optional(document, "stable", str, where),
            previous=take_optional(document, "previous", str, where),
            token=take(document, "token", int, where),
            updated_at=take(document, "updated_at", str, where),
            history=tuple(
                Move(
                    take(move, "release", str, where),
                    take(move, "token", int, where),
                    take(move, "at", str, where),
                )
                for move in moves
            ),
        )


class Channels:
    def __init__(self, objects: Objects, clock: Callable[[], float] = time.time) -> None:
        self.objects, self.clock = objects, clock

    def read(self, model: str) -> Channel:
        """A model without a channel has an empty one."""
        return self._read(model)[0]

    def move(self, model: str, to_release: str, token: int) -> Channel:
        """Make `to_release` stable. Stable already: nothing changes.

        token: of the caller's lease; refused with LeaseLost if a newer one was given out.
        """
        keys.check_id("release", to_release)

        def moved(channel: Channel) -> Channel:
            if channel.stable == to_release:
                return replace(channel, token=token)
            now = timestamp(self.clock())
            return replace(
                channel,
                stable=to_release,
                previous=channel.stable,
                token=token,
                updated_at=now,
                history=(*channel.history, Move(to_release, token, now))[-KEPT_MOVES:],
            )

        return self._swap(model, moved, token)

    def fence(self, model: str, token: int) -> None:
        """Make every holder of an older token fail from now on."""
        try:
            self._swap(model, lambda channel: replace(channel, token=token), token)
        except LeaseLost:
            pass  # fenced by a newer one already

    def _swap(self, model: str, change: Callable[[Channel], Channel], token: int) -> Channel:
        key = keys.channel(model)
        for attempt in range(ATTEMPTS):
            channel, etag = self._read(model)
            newest = max(channel.token, current_token(self.objects, model))
            if newest > token:
                raise LeaseLost(
                    f"The channel of {model}: this run holds lease token {token}, but token {newest} was "
                    "given out "
                    "since. Another run took over; this one may change nothing."
                )
            changed = change(channel)
            if changed == channel:
                return channel
            body = encode(changed.to_json())
            try:
                if etag:
                    self.objects.replace(key, body, etag)
                else:
                    self.objects.put_new(key, body)
            except Conflict:
                time.sleep(random.uniform(0, 0.02) * 2 ** min(attempt, 6))
                continue
            return changed
        raise Conflict(
            f"{key} was changed by others {ATTEMPTS} times in a row. Look who writes it, and retry."
        )

    def _read(self, model: str) -> tuple[Channel, str]:
        key = keys.channel(model)
        stored = self.objects.get_or_none(key)
        if stored is None:
            return Channel(model), ""
        return Channel.from_json(decode(stored.body, key), key), stored.etag
