"""Replies are pulled one by one: one that never becomes whole holds up nobody."""

import threading
import time

import pytest
from flwr.app import Message, RecordDict

from fedlabels.deploy import pulls
from fedlabels.deploy.pulls import WIDTH, Pulls
from fedlabels.rounds.flower_compat import identify, set_message_id


def reply_to(id_):
    message = Message(RecordDict(), 7, "train")
    set_message_id(message, id_)
    return Message(RecordDict(), reply_to=message)


class Uploads:
    """A grid on which a pull waits until its reply is whole, as Flower's does."""

    def __init__(self, *ids):
        identify()
        self.whole = {id_: threading.Event() for id_ in ids}
        self.pulled, self.error = [], {}

    def pull_messages(self, ids):
        assert len(ids) == 1
        self.pulled += ids
        (id_,) = ids
        if id_ in self.error:
            raise self.error[id_]
        if id_ not in self.whole:
            return []  # it has not begun
        self.whole[id_].wait(60)
        return [reply_to(id_)]


@pytest.fixture
def pull(monkeypatch):
    """Real time, in which a pull is held after a moment."""
    monkeypatch.setattr(pulls, "time", time)
    monkeypatch.setattr(pulls, "HELD", 0.01)
    monkeypatch.setattr(pulls, "_POLL", 0.001)

    def make(*ids, whole=()):
        grid = Uploads(*ids)
        for id_ in whole:
            grid.whole[id_].set()
        return grid, Pulls(grid)

    return make


def names(replies):
    return sorted(reply.metadata.reply_to_message_id for reply in replies)


def test_a_reply_that_stays_half_holds_up_nobody(pull):
    grid, mail = pull("a", "b", "c", whole="ac")
    assert names(mail.gather("abc", 0.05)) == ["a", "c"]
    assert mail.arriving("b")
    assert not mail.arriving("a")
    assert grid.pulled.count("b") == 1  # who waits is not asked twice
    grid.whole["b"].set()


def test_a_slow_reply_counts_if_it_is_in_time(pull):
    grid, mail = pull("a", "b", whole="a")
    threading.Timer(0.1, grid.whole["b"].set).start()
    assert names(mail.gather("ab", 60)) == ["a", "b"]


def test_more_halves_than_may_begin_side_by_side(pull):
    ids = [f"half-{i}" for i in range(3 * WIDTH)]
    grid, mail = pull(*ids, "whole", whole=["whole"])
    assert names(mail.gather([*ids, "whole"], 5)) == ["whole"]
    for event in grid.whole.values():
        event.set()


def test_what_comes_late_is_dropped_and_does_not_count_later(pull):
    grid, mail = pull("a", "b")
    assert mail.gather("a", 0.02) == []
    grid.whole["a"].set()
    grid.whole["b"].set()
    assert names(mail.gather("b", 60)) == ["b"]
    assert not mail.arriving("b")


def test_what_has_not_begun_is_asked_for_again(pull):
    grid, mail = pull()
    assert mail.look("a") == mail.look("a") == []
    assert grid.pulled == ["a", "a"]
    assert not mail.arriving("a")


def test_an_error_of_flower_is_raised_where_the_reply_is_waited_for(pull):
    grid, mail = pull("a", whole="a")
    grid.error["b"] = ConnectionError("the SuperLink is gone")
    with pytest.raises(ConnectionError, match="is gone"):
        mail.gather("ab", 60)
