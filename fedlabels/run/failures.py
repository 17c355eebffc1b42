"""Which failures a run goes on with: clients within a round, and rounds one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlabels.errors import RunError
from fedlabels.rounds.job import ClientRow
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.records import client_records
from fedlabels.run.place import Place


@dataclass(frozen=True)
class Losses:
    """Rounds that came to nothing: no usable reply, or no new model.

    Parameters
    ----------
    in_a_row : int
        How many, up to the latest round.
    any_useful : bool
        Whether any round of the run was of use.
    """

    in_a_row: int = 0
    any_useful: bool = False

    def then(self, lost: bool) -> "Losses":
        """Return the losses after one more round."""
        return Losses(self.in_a_row + 1 if lost else 0, self.any_useful or not lost)


def check_failures(
    place: Place, folder: RunFolder, index: int, exchange: str, clients: Sequence[ClientRow]
) -> None:
    """End a run of whose clients too many failed in an exchange.

    Raises
    ------
    RunError
        If the place does not go on with them; their rows are in the table by then.
    """
    if place.goes_on(clients):
        return
    lost = [client for client in clients if client.status in ("failed", "rejected")]
    rejected = " or were rejected" if any(client.status == "rejected" for client in lost) else ""
    # whoever mends this wants to know who failed and why; a resume cuts these rows off again
    folder.clients.append(client_records(index, clients, place.held))
    raise RunError(
        f"{len(lost)} of {len(clients)} clients failed{rejected} in round {index} ({exchange}),"
        f" allowed is {place.allowance()}; client {lost[0].client_id}: {lost[0].error}. Mend the"
        f" cause and resume={folder.path}"
    )


def check_losses(
    losses: Losses, place: Place, folder: RunFolder, index: int, clients: Sequence[ClientRow],
    *, last: bool,
) -> None:  # fmt: skip
    """End a run whose rounds come to nothing; the round is in the tables already.

    Parameters
    ----------
    losses : Losses
        Up to this round.
    place, folder : Place and RunFolder
        What it allows, and what is to be resumed.
    index, clients : int and sequence of ClientRow
        The round and what its clients did.
    last : bool
        Whether no round follows.

    Raises
    ------
    RunError
        If too many rounds in a row were lost, or all of the run.
    """
    nothing = last and not losses.any_useful and place.wants_a_good_round
    if losses.in_a_row < place.lost_rounds and not nothing:
        return
    reasons = (f"client {client.client_id}: {client.error}" for client in clients if client.error)
    raise RunError(
        f"{losses.in_a_row} rounds in a row gave no new model, the last is round {index}: every"
        " update was rejected, lost or without a tensor, or what came of them was not finite;"
        f" {next(reasons, 'see the log')}. Mend the cause and resume={folder.path}"
    )
