"""What a worker answers, put together again after it died."""

import numpy as np

from fedlabels.rounds.job import ClientRow
from fedlabels.rounds.order import Report


def part(client_id: int) -> Report:
    made = (client_id, client_id, 1.0, {"w": np.array([client_id])})
    return Report(
        rows=[ClientRow(client_id, "ok")],
        nodes={"model": {(client_id, client_id + 1): None}},
        each={"model": [made]},
        kept={"model": [made]},
        states={client_id: {"m": np.array([client_id])}},
        seconds=0.5,
    )


def test_reports_of_the_parts_add_up() -> None:
    whole = Report()
    for client_id in range(3):
        whole.add(part(client_id))
    assert [row.client_id for row in whole.rows] == [0, 1, 2]
    assert list(whole.nodes["model"]) == [(0, 1), (1, 2), (2, 3)]
    assert [client_id for _, client_id, _, _ in whole.each["model"]] == [0, 1, 2]
    assert [client_id for _, client_id, _, _ in whole.kept["model"]] == [0, 1, 2]
    assert sorted(whole.states) == [0, 1, 2]
    assert whole.seconds == 1.5
