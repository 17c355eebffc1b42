"""What a run says of its data beside its figures: what is odd, and who could not be tested."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlabels.federation.suspicion import suspicions, untested
from fedlabels.run.data import samples_of
from fedlabels.run.world import World

LISTED = 10  # clients named in a line
LONGEST = 200  # characters of an error in a line


def odd(world: World, *, dealt: bool) -> list[str]:
    """Say what is odd about the data, and about where the model begins, a sentence each.

    Parameters
    ----------
    world : World
        What is run.
    dealt : bool
        Whether it is known who holds what; of real devices it is not.
    """
    tests = samples_of(world.source.test)
    begun = [] if world.start is None else list(world.start.notes)
    if not dealt:
        return [*begun, *untested(tests)]
    return begun + suspicions(
        world.federation,
        tests,
        train=samples_of(world.source.train),
        sees_all_labels=world.client.sees_all_labels,
    )


def lost_tests(index: int, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the clients whose own accuracy is missing, and say why, in a line; none if all have it.

    Parameters
    ----------
    index : int
        The round.
    rows : sequence of mapping
        Clients that were tested or could not be; see `personal`.
    """
    lost = [row for row in rows if row["error"]]
    if not lost:
        return []
    named = ", ".join(str(row["client_id"]) for row in lost[:LISTED])
    why = " ".join(str(lost[0]["error"]).split())[:LONGEST]
    return [
        f"round {index}: {len(lost)} of {len(rows)} clients could not be tested on their own "
        f"samples: {named}{' ...' if len(lost) > LISTED else ''} (client {lost[0]['client_id']}: "
        f"{why})"
    ]
