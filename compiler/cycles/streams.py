"""Streamed maps in the cycle model: when rows come in, and when rows of tiles go out.

The in-stream always has a vector to give, and what is sent is always taken. Rows are followed only as far as a window
needs them: what write-back writes up to then is known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.distances import Distances
from compiler.image.steps import Step
from compiler.jit import njit

__all__ = ["LIMITS", "PLACES", "SENT", "WRITES", "Streams", "bring", "last_beat", "send", "sends"]

Int = NDArray[np.int64]
Arrays = tuple[Int, Int, Int, Int, Int]

# Places in the state.
RECEIVED, NEXT, WRITE, WRITES, LIMIT, LIMITS, BEATS = range(7)
SENT, AT, LINES, PERIOD, PLACES = range(7, 12)

_EVER = 1 << 40


class Streams:
    """How far both streams are.

    state : in-stream: rows received, first cycle in which another vector may be written, place in and number of
        `writes`, place in and number of `limits`, vectors of a row. Out-stream: rows of tiles that are sent or will be,
        the one that is read last, lines of one, cycles from line to line, rows of the ring.
    received : when the last vector of each row is written. limits : (n, 2), when row numbers are limited, to what.
    writes : cycles in which write-back writes. sent : when the first line of each row of tiles is read.
    """

    def __init__(self, groups: int, distances: Distances) -> None:
        self.groups, self.distances = groups, distances
        self.state = np.zeros(12, np.int64)
        self.state[PERIOD] = distances.read_to_beat + groups - 1 + distances.beat_to_read
        self.received, self.sent, self.writes = (np.zeros(0, np.int64) for _ in range(3))
        self.limits = np.zeros((0, 2), np.int64)

    @property
    def arrays(self) -> Arrays:
        """As compiled functions take them."""
        return self.state, self.received, self.limits, self.writes, self.sent

    @property
    def last_received(self) -> int:
        """When the last vector of the last layer comes, if it has let all rows go."""
        return int(bring(len(self.received), *self.arrays[:4]))

    @property
    def last_sent(self) -> int:
        """When the last beat of what is written so far is taken."""
        return int(last_beat(self.state[SENT] - 1, self.state, self.sent, self.groups, self.distances))

    def through(self) -> int:
        """First cycle in which nothing is left to take or to send."""
        return max(self.last_received, self.last_sent) + self.distances.stream_to_quiet

    def expect(self, lines: int, now: int) -> None:
        """Make room for so many lines that write-back will write; before `now`, all but rows in flight are done."""
        state = self.state
        old = self.writes[: state[WRITES]]
        if state[RECEIVED] == len(self.received):
            old = old[old >= now]
        else:
            old = old[state[WRITE] :]
        self.writes = np.concatenate([old, np.zeros(lines, np.int64)])
        state[WRITE], state[WRITES] = 0, len(old)

    def write(self, times: Int) -> None:
        """Write-back writes in these cycles, later than in all before."""
        first = self.state[WRITES]
        self.writes[first : first + len(times)] = times
        self.state[WRITES] += len(times)

    def begin_in(self, step: Step, batch: int, start: int) -> None:
        """A layer's in-stream begins."""
        state = self.state
        state[RECEIVED] = state[LIMIT] = 0
        state[NEXT], state[BEATS] = start + self.distances.begin_to_write, step.ring_row
        self.received = np.zeros(batch * step.height, np.int64)
        self.limits = np.zeros((batch * step.tiles_y + 1, 2), np.int64)
        self.limits[0] = state[NEXT], min(step.height, max(0, step.y0)) + step.ring_rows
        state[LIMITS] = 1

    def begin_out(self, step: Step, batch: int) -> None:
        """A layer that streams out is accepted."""
        state = self.state
        state[SENT] = state[AT] = 0
        state[LINES], state[PLACES] = step.tile_lines, step.out_rows
        self.sent = np.zeros(batch * step.tiles_y, np.int64)

    def finish_in(self, passed: int) -> None:
        """All windows of the layer are read: the rows that are left come without a limit."""
        state = self.state
        self.limits[state[LIMITS]] = passed + self.distances.begin_to_write, _EVER
        state[LIMITS] += 1


@njit(cache=True)
def bring(rows: int, state: Int, received: Int, limits: Int, writes: Int) -> int:
    """When the last vector of so many rows is written; -1 for none.

    Raises ValueError if there never is a place for one of them.
    """
    while state[RECEIVED] < rows:
        row = state[RECEIVED]
        while state[LIMIT] < state[LIMITS] and limits[state[LIMIT], 1] <= row:
            state[LIMIT] += 1
        if state[LIMIT] == state[LIMITS]:
            raise ValueError("a window needs more rows than its ring holds")
        time = max(state[NEXT], limits[state[LIMIT], 0])
        left = state[BEATS]
        while left:
            while state[WRITE] < state[WRITES] and writes[state[WRITE]] < time:
                state[WRITE] += 1
            together = left
            if state[WRITE] < state[WRITES]:
                together = min(left, writes[state[WRITE]] - time)
            time += together
            left -= together
            if left:
                time += 1
        received[row] = time - 1
        state[NEXT] = time
        state[RECEIVED] += 1
    return int(received[rows - 1]) if rows > 0 else -1


@njit(cache=True)
def last_beat(row: int, state: Int, sent: Int, groups: int, distances: Distances) -> int:
    """When the last beat of a row of tiles is taken; -1 if there is none."""
    if row < 0:
        return -1
    return int(sent[row] + (state[LINES] - 1) * state[PERIOD] + distances.read_to_beat + groups - 1)


@njit(cache=True)
def send(written: int, state: Int, sent: Int, groups: int, distances: Distances) -> None:
    """The last tile of a row is written."""
    row = state[SENT]
    before = last_beat(row - 1, state, sent, groups, distances)
    sent[row] = max(written + distances.row_to_send, before + distances.beat_to_row)
    state[SENT] += 1


@njit(cache=True)
def sends(time: int, state: Int, sent: Int) -> bool:
    """Whether the out-stream reads a line in this cycle, which is not earlier than the one asked for before."""
    while state[AT] + 1 < state[SENT] and sent[state[AT] + 1] <= time:
        state[AT] += 1
    if state[SENT] == 0:
        return False
    since = time - sent[state[AT]]
    return bool(0 <= since < state[LINES] * state[PERIOD] and since % state[PERIOD] == 0)
