"""Distances between the events of the cycle model."""

from __future__ import annotations

from typing import NamedTuple

from hw.params import ROUND_TRIP, Params

__all__ = ["DISTANCES", "Distances", "distances_of"]


class Distances(NamedTuple):
    """Distances between events, in cycles; each is stated (and tested) by the hardware block it belongs to."""

    first_accept: int = 2  # start → accept of the first segment, on the record's clock
    request: int = 1  # accept → first vector read
    next_accept: int = 1  # last vector read → next segment accepted
    read_to_register: int = 1  # A → M
    register_to_fire: int = 1  # M → U
    fire_to_queue: int = 4  # U → W
    queue_to_read: int = 1  # W → R
    read_to_take: int = 1  # R → X
    take_to_select: int = 4  # X → S
    columns_ahead: int = 1  # last word of a column requested → the third column after it enters the expander's buffer
    round_trip: int = ROUND_TRIP + 1  # vectors on their way when a queue shows credit
    credit: int = 2  # W or R → the credit that a broadcast sees counts it
    select_to_done: int = 4  # last entry of a tile selected → it is finished
    drop_to_done: int = 5  # fire of a vector that is empty in all PEs → its tile is finished
    scanned_to_finished: int = 2  # last vector left the scan → its tile is finished
    finished_to_drain: int = 3  # tile finished → first word of the output table read
    written_to_drain: int = 2  # last line of the tile before written → first word of the output table read
    word_to_line: int = 9  # word of the output table read → line written
    line_to_read: int = 1  # line written → it may be read
    record_to_written: int = 3  # last cycle in which starved PEs are counted for a layer → its last line written
    written_to_free: int = 1  # last line of a tile written → its bank is free
    finished_to_buffer: int = 2  # tile of weights finished → its buffer is free
    free_to_words: int = 1  # buffer free and header taken → first word
    loaded: int = 1  # last word of a tile of weights → it may be scanned
    next_descriptor: int = 2  # descriptor taken → next one taken
    end_to_done: int = 1  # END taken → the run may end
    written_to_place: int = 1  # tile or operation written → its place in the write queue is free, segments may pass
    push_to_start: int = 1  # operation queued → it begins
    written_to_start: int = 1  # tile or operation before written → operation begins
    start_to_fetch: int = 1  # operation begins → its first line is read
    fetch_to_step: int = 2  # last operand of the first line read → first product
    step_to_fetch: int = 1  # first product of a line → first operand of the next one is read
    step_to_line: int = 8  # last product of a line → line written
    settle: int = 3  # descriptor may be taken → the rows that its window needs are known
    passed: int = 1  # next vector could be read → no vector before it is read again
    begin_to_accept: int = 2  # in-stream begins → first segment accepted
    begin_to_write: int = 1  # in-stream begins, or rows are let go → a vector is written
    row_to_accept: int = 2  # last vector of a row written → a segment that reads it is accepted
    row_to_send: int = 2  # last line of a row of tiles written → its first line is read
    read_to_beat: int = 2  # line read → its first beat
    beat_to_read: int = 1  # last beat of a line → the next one is read
    beat_to_row: int = 2  # last beat of a row of tiles → the first line of the next one is read
    beat_to_drain: int = 3  # last beat of a row of tiles → first word of the output table read for the one in its place
    stream_to_quiet: int = 1  # last vector written, last beat → a layer that streams may be accepted, the run may end
    function: int = 6  # a line is written later by this if its tile or operation has functions


DISTANCES = Distances()


def distances_of(params: Params, known: Distances = DISTANCES) -> Distances:
    """Distances in an array with these parameters; `known` are those without ``params.hops`` and ``params.slim``."""
    hops, fetch = params.hops, params.fetch
    return known._replace(
        first_accept=known.first_accept + fetch, next_descriptor=known.next_descriptor + fetch,
        fire_to_queue=known.fire_to_queue + hops, drop_to_done=known.drop_to_done + hops, credit=known.credit + hops,
        round_trip=known.round_trip + 2 * hops,
    )  # fmt: skip
