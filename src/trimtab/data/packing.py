"""Filling rows of fixed capacity with whole examples."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices into `lengths`, each of a total length of at most `capacity` tokens.

    Longest first, each into the fullest bin that still holds it. Ties go to the lower index, so
    the result depends on the arguments alone; the number of bins depends only on the multiset of
    lengths. O(n log n) for n lengths, at most 11/9 of the least possible number of bins plus one
    (Johnson et al., Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms,
    1974).

    Raises ValueError for a length under 1 or over the capacity.
    """
    for index, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise ValueError(f"length {length} at index {index} is not within 1 to {capacity}")
    bins: list[list[int]] = []
    bins_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        place = bisect_left(rooms, length)
        if place == len(rooms):
            bin_index, room = len(bins), capacity
            bins.append([])
        else:
            room = rooms[place]
            bin_index = bins_by_room[room].pop()
            if not bins_by_room[room]:
                del rooms[place]
        bins[bin_index].append(index)
        left = room - length
        waiting = bins_by_room.setdefault(left, [])
        if not waiting:
            insort(rooms, left)
        waiting.append(bin_index)
    return bins
