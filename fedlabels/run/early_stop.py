"""Early stop: a decision that is part of a run's state, so that a resumed run decides the same."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedlabels.errors import ConfigError
from fedlabels.settings.groups import METRICS, TEST, EarlyStopConfig


@dataclass(frozen=True)
class Course:
    """What the evaluations of one metric have shown so far.

    Parameters
    ----------
    last, best : float
        The newest value and the greatest, in [0, 1].
    best_round : int
        Where the greatest was first seen.
    waited : int
        Evaluations since then.
    """

    last: float
    best: float
    best_round: int
    waited: int = 0

    def then(self, index: int, value: float) -> "Course":
        """Return the course with one more evaluation."""
        if value > self.best:
            return Course(value, value, index)
        return Course(value, self.best, self.best_round, self.waited + 1)


@dataclass
class EarlyStop(EarlyStopConfig):
    """Stops a run by a figure on test samples; the settings decide when.

    Parameters
    ----------
    every : int
        Rounds from one evaluation to the next, >= 1. One between, of the last round of a call, does
        not count: with more rounds planned it would not have been.
    """

    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._courses = dict[str, Course]()

    def choose(self, measured: Iterable[str]) -> None:
        """Settle which metric counts.

        Parameters
        ----------
        measured : iterable of str
            Those that this run will measure.

        Raises
        ------
        ConfigError
            If the run never measures the one that is asked for, or none at all.
        """
        known = [name for name in METRICS if name in measured]
        if self.metric == "auto" and (known or not self.wanted):
            self.metric = known[0] if known else TEST
        if self.wanted and self.metric not in known:
            have = f"it measures {', '.join(known)}" if known else "it measures no accuracy"
            raise ConfigError(
                f"early_stop.metric={self.metric} is never measured in this run ({have}): there are"
                " no test samples for it, or no model of that kind; choose another metric, or set"
                " early_stop.target=null early_stop.patience=null"
            )

    def see(self, index: int, figures: Mapping[str, float]) -> None:
        """Take up what the evaluation of a round has measured.

        Parameters
        ----------
        index : int
            The round.
        figures : mapping of str to float
            Its figures, and no other metric of the round.
        """
        if index % self.every:
            return
        for name in METRICS:
            if name in figures:
                value, before = float(figures[name]), self._courses.get(name)
                first = Course(value, value, index)
                self._courses[name] = first if before is None else before.then(index, value)

    def reason(self) -> str | None:
        """Say why the run stops here; None while it goes on."""
        course = self._courses.get(self.metric)
        if course is None:
            return None
        if self.target is not None and course.last >= self.target:
            return f"{self.metric} {course.last:.4f} has reached early_stop.target={self.target:g}"
        if self.patience is not None and course.waited >= self.patience:
            return (
                f"{self.metric} has not risen for {course.waited} evaluations"
                f" (early_stop.patience={self.patience}); best {course.best:.4f} in round"
                f" {course.best_round}"
            )
        return None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON values."""
        return {name: asdict(course) for name, course in self._courses.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._courses = {name: Course(**course) for name, course in state.items()}

    def replay(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Go on from the rows of ``rounds.csv``, for a checkpoint that kept no state."""
        for row in rows:
            self.see(int(row["round"]), {n: float(row[n]) for n in METRICS if row.get(n)})


BY_CALLBACK = "a callback asked for it"


def still_stopped(early_stop: EarlyStop, saved: Mapping[str, Any], rounds: int) -> str | None:
    """Say why a run that is resumed has stopped early, under the settings that it now has.

    Parameters
    ----------
    early_stop : EarlyStop
        With the state of the checkpoint.
    saved : mapping
        The checkpoint's manifest.
    rounds : int
        Rounds that are wanted now; more of them override a callback, which has no settings.

    Returns
    -------
    str or None
        None if it goes on.
    """
    asked = saved.get("stopped_early") == BY_CALLBACK
    return early_stop.reason() or (
        BY_CALLBACK if asked and rounds <= saved["config"]["rounds"] else None
    )
