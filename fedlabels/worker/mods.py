"""Flower's mods around what a client sends: the same ones in a simulation and on a device.

A mod of Flower sees the message to one client and its reply. Clipping mods mistreat some tensors,
which are kept away from them: see :class:`Mods`.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import mod as flower

from fedlabels.cohort.types import Term
from fedlabels.errors import ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import (
    ADAPTIVE_CLIPPING,
    Handler,
    error_reply,
    identify,
    lazy_record,
    peek,
    with_mods,
)
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.order import Order
from fedlabels.worker.convert import arrays_of
from fedlabels.worker.outcome import Outcome


@dataclass(frozen=True)
class ModKind:
    """What must be known of a mod before a run.

    Parameters
    ----------
    call : callable
        Flower's function.
    reads : tuple of str
        Settings that a strategy must send for it.
    clips : bool
        Whether it bounds the update of the model, which then must be all that goes up.
    """

    call: Handler
    reads: tuple[str, ...] = ()
    clips: bool = False


MODS: Mapping[str, ModKind] = {
    "fixed_clipping": ModKind(flower.fixedclipping_mod, ("clipping_norm",), clips=True),
    "message_size": ModKind(flower.message_size_mod),
    "arrays_size": ModKind(flower.arrays_size_mod),
}
"""Mods by name."""


def check_mods(names: Sequence[str]) -> None:
    """Check the names of mods.

    Raises
    ------
    ConfigError
        If one is not known, or known to do something else than its name says.
    """
    for name in names:
        if name == "adaptive_clipping":
            raise ConfigError(
                f"deploy.mods: adaptive_clipping is refused. {ADAPTIVE_CLIPPING}. Use"
                " fixed_clipping, with strategy.rule=DifferentialPrivacyClientSideFixedClipping"
            )
        if name not in MODS:
            raise ConfigError(f"deploy.mods may hold {', '.join(MODS)}; got {name!r}")


class Mods:
    """A chain of mods around the training of clients.

    - Clipping mods see trainable tensors only: counters and running statistics are no part of an
      update's norm. 0-d tensors are shown with shape (1,), because in-place arithmetic misses them.
    - An update that is exactly zero passes through clipping; Flower divides by its norm.
    - A client whose update cannot be bounded, because it sends more than the model, has failed.

    Parameters
    ----------
    names : sequence of str
        Keys of `MODS`, outermost first.
    buffers : frozenset of str
        The model's floating-point tensors that are not trained.

    Raises
    ------
    ConfigError
        If a name is not known.
    """

    def __init__(self, names: Sequence[str], buffers: frozenset[str]) -> None:
        check_mods(names)
        kinds = [MODS[name] for name in names]
        self._chain = [_on_parameters(k.call, buffers) if k.clips else k.call for k in kinds]
        identify()

    def message(self, order: Order, shared: Mapping[str, Arrays]) -> Message:
        """Make the message that the mods see of an order; the same for all its clients."""
        records = {wire.shared_key(name): lazy_record(arrays) for name, arrays in shared.items()}
        config = wire.config_record(order.round, order.rounds, order.settings)
        return Message(RecordDict({wire.CONFIG: config, **records}), 1, "train")

    def around(self, message: Message, out: Outcome) -> Outcome:
        """Return a client's result as it leaves the mods; one that failed or sends nothing stays.

        Parameters
        ----------
        message : flwr.app.Message
            From `message`.
        out : Outcome
            What the client made.
        """
        if out.error is not None or not out.terms:
            return out
        try:
            return self._around(message, out)
        except Exception as error:  # what cannot be bounded does not pass
            return Outcome(problem=f"a mod cannot read it: {type(error).__name__}: {error}")

    def _around(self, message: Message, out: Outcome) -> Outcome:
        records = {
            wire.ARRAYS if name == wire.MODEL else wire.TERM + name: lazy_record(
                arrays_of(term.value)
            )
            for name, term in out.terms.items()
        }
        metrics = MetricRecord({wire.NUM_EXAMPLES: out.weight()})
        content = RecordDict({wire.METRICS: metrics, **records})

        def answer(asked: Message, _: Context) -> Message:
            return Message(content, reply_to=asked)

        context = Context(1, 1, {}, RecordDict(), {})
        reply: Message = with_mods(answer, self._chain)(message, context)
        if reply.has_error():
            return Outcome(error=f"a mod refused: {reply.error.reason}")
        sent = reply.content.array_records.get(wire.ARRAYS)
        if sent is None or sent is records[wire.ARRAYS]:
            return out
        return _replaced(out, peek(sent))


def _replaced(out: Outcome, model: Arrays) -> Outcome:
    """Put the values that mods changed into the term of the model."""
    term = out.terms[wire.MODEL]
    value = {
        name: torch.from_numpy(np.array(model[name])).to(old.device)
        for name, old in term.value.items()
    }
    kept = {
        name: {**whole, **model} if name == wire.MODEL else whole
        for name, whole in out.kept.items()
    }
    terms = {**out.terms, wire.MODEL: Term(value, term.weight, term.reduce)}
    return replace(out, terms=terms, kept=kept, read=None)


def _on_parameters(call: Handler, buffers: frozenset[str]) -> Handler:
    """Let a clipping mod see the trainable part of the model alone."""

    def seen(message: Message, context: Context, call_next: Handler) -> Message:
        reply: Message = call_next(message, context)
        if reply.has_error():
            return reply
        records = reply.content.array_records
        others = sorted(key.removeprefix(wire.TERM) for key in records if key != wire.ARRAYS)
        if others or wire.ARRAYS not in records:
            sent = ", ".join(others) or "none"
            return error_reply(message, f"it bounds the model alone, but the client sends {sent}")
        before, after = peek(message.content.array_records[wire.ARRAYS]), peek(records[wire.ARRAYS])
        names = [
            n for n, v in before.items() if n in after and v.dtype.kind == "f" and n not in buffers
        ]
        if all(np.array_equal(before[name], after[name]) for name in names):
            return reply
        config = message.content[wire.CONFIG]
        shown = RecordDict({wire.ARRAYS: _part(before, names), wire.CONFIG: config})
        down = Message(shown, 1, "train")
        content = RecordDict({**reply.content, wire.ARRAYS: _part(after, names)})
        up: Message = call(down, context, lambda asked, _: Message(content, reply_to=asked))
        if up.has_error():
            return up
        moved = peek(up.content.array_records[wire.ARRAYS])
        bounded = {n: moved[n].reshape(after[n].shape).astype(after[n].dtype) for n in names}
        reply.content[wire.ARRAYS] = lazy_record({**after, **bounded})
        return reply

    return seen


def _part(arrays: Arrays, names: Sequence[str]) -> ArrayRecord:
    return lazy_record({name: np.atleast_1d(arrays[name]) for name in names})
