"""Order of slices in which the first ones are of as many people as there are."""

from collections import deque
from itertools import chain, zip_longest

from torch.utils.data import Dataset

from evaluation.results.volumes import volume_of


def over_people(dataset: Dataset) -> list[int]:
    """Items of a data set in turns: one slice of each person, then another of each, and so on.

    A person's slices come from the middle outwards, so that any number of them is spread over the
    body. More items only add to fewer. A person is known from the data set's `people`, or else
    stands for a volume (`volumes.volume_of`).

    Args:
        dataset: a data set with `keys`, and perhaps `people` by key.
    """
    people = getattr(dataset, "people", {})
    items: dict[str, list[int]] = {}
    for i, key in enumerate(dataset.keys):
        items.setdefault(people.get(key) or volume_of(key), []).append(i)
    turns = zip_longest(*([own[i] for i in from_the_middle(len(own))] for own in items.values()))
    return [i for i in chain.from_iterable(turns) if i is not None]


def from_the_middle(count: int) -> list[int]:
    """0 ... count - 1: the middle, the middles of both halves, those of the quarters, and so on."""
    order, parts = [], deque([(0, count)])
    while parts:
        first, last = parts.popleft()
        if first < last:
            middle = (first + last) // 2
            order.append(middle)
            parts += [(first, middle), (middle + 1, last)]
    return order
