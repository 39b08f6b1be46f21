"""The points that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["unbeaten"]


def unbeaten(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other beats, ascending; of equal ones the first.

    A point beats another that is larger in one coordinate at least, and smaller in none. All have as many coordinates.
    """
    return [
        number
        for number, one in enumerate(points)
        if not any(
            all(a <= b for a, b in zip(other, one, strict=True)) and (tuple(other) != tuple(one) or earlier < number)
            for earlier, other in enumerate(points)
        )
    ]
