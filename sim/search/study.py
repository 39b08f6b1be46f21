"""The proposals of a search by Optuna, in an order that neither time nor interruptions change.

Trial n is proposed when exactly the trials up to n - ahead are known, and they are told in the order of their numbers,
however many processes there are. What is known lies in an SQLite file that Optuna's own tools read. A search that goes
on proposes all its trials again, tells what the file knows of them, and must meet the same proposals. So no state of a
sampler is ever read from a file: Optuna keeps that of CMA-ES pickled, and a pickle can run anybody's code.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.optuna_quiet import optuna_quiet
from sim.front import unbeaten
from sim.search.space import Variable
from sim.search.spec import Search
from sim.search.trial import Outcome, Values

__all__ = ["DATABASE", "Proposal", "Study", "front"]

DATABASE = "search.db"

_ATTRIBUTE = "search"
_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}  # an outcome's → Optuna's
_MOST_BYTES = 1 << 30


def front(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that no other beats in all objectives, by the first one; of equal ones the first that is given."""
    done = [each for each in outcomes if each.state == "complete"]
    kept = [done[number] for number in unbeaten([each.objectives for each in done])]
    return sorted(kept, key=lambda each: (each.objectives, each.number))


@dataclass(frozen=True)
class Proposal:
    """A trial to run; `rungs` : those of the trials that were known when it was proposed."""

    number: int
    values: Values
    rungs: tuple[Mapping[str, float], ...]


class Study:
    """Proposals and what became of them.

    Parameters
    ----------
    folder : of the search; the file in it is made or gone on with.

    `close` it in the end.

    Raises
    ------
    InputError
        The file is of another search, of other versions, or is none.
    ToolError
        Optuna is not installed, or what its sampler needs.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        self.search, self.path = search, folder / DATABASE
        self.outcomes: dict[int, Outcome] = {}
        self._open: dict[Path, Any] = {}
        try:
            self._known = self._read()
        except BaseException:
            self.close()
            raise
        with optuna_quiet(search.sampler) as optuna:
            self._live = optuna.create_study(
                sampler=_sampler(optuna, search), directions=["minimize"] * len(search.objectives)
            )
            self._asked: list[Any] = []
            self._space = {each.path: _distribution(optuna, each) for each in search.variables}

    def proposals(self) -> list[Proposal]:
        """Trials that can be begun now. Those that the file knows are told meanwhile, and are not among them."""
        fresh = []
        while True:
            while len(self._asked) < self.search.trials and len(self._asked) - self.search.ahead < len(self.outcomes):
                found = self._propose()
                if found.number not in self._known:
                    fresh.append(found)
                elif (known := dict(self._known[found.number].values)) != found.values:
                    raise InputError(
                        f"{self.path}: trial {found.number} has {known}; Optuna proposes {found.values} now. The file "
                        "was made with another version of it, or changed; choose another folder"
                    )
            following = self._known.get(len(self.outcomes))
            if following is None or following.number >= len(self._asked):
                return fresh
            self._tell(following)

    def _propose(self) -> Proposal:
        with optuna_quiet():
            trial = self._live.ask(self._space)
        self._asked.append(trial)
        values = {path: trial.params[path] for path in self._space}
        rungs = tuple(each.rungs for each in self.outcomes.values() if each.rungs)
        return Proposal(len(self._asked) - 1, values, rungs)

    def tell(self, outcome: Outcome) -> None:
        """What became of the next trial in order; it is in the file when this returns."""
        assert outcome.number == len(self.outcomes)
        self._write(outcome)
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        self.outcomes[outcome.number] = outcome
        with optuna_quiet() as optuna:
            trial = self._asked[outcome.number]
            if self.search.prune:
                for step, error in enumerate(outcome.curve, start=1):
                    trial.report(error, step)
            if outcome.state == "complete":
                self._live.tell(trial, list(outcome.objectives))
            else:
                self._live.tell(trial, state=optuna.trial.TrialState[_STATES[outcome.state]])

    @property
    def settings(self) -> dict[str, Any]:
        """What the file belongs to."""
        return dict(json.loads(json.dumps(self.search.asdict())))

    @contextlib.contextmanager
    def _stored(self, path: Path) -> Iterator[Any]:
        """The study in a file, which stays open until `close`."""
        with optuna_quiet() as optuna:
            import sqlalchemy

            try:
                if path not in self._open:
                    storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
                    self._open[path] = storage, optuna.create_study(
                        storage=storage, study_name="search", load_if_exists=True,
                        directions=["minimize"] * len(self.search.objectives),
                    )  # fmt: skip
                yield self._open[path][1]
            except (
                sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError, KeyError,
                TypeError, AssertionError, ArithmeticError,
            ) as error:  # fmt: skip
                said = str(error).strip().splitlines()[:1]
                raise InputError(f"{path} cannot be used as the file of a search: {''.join(said)}") from None

    def close(self) -> None:
        """Let the file go."""
        while self._open:
            _, (storage, _) = self._open.popitem()
            storage.remove_session()
            storage.engine.dispose()

    def _read(self) -> dict[int, Outcome]:
        """What the file knows; it is made where there is none."""
        if not self.path.exists():
            fresh = self.path.with_name(f".{DATABASE}.new")
            fresh.unlink(missing_ok=True)
            with self._stored(fresh) as study:
                study.set_user_attr(_ATTRIBUTE, self.settings)
            self.close()
            os.replace(fresh, self.path)  # a process that is killed leaves a whole file or none
            return {}
        if self.path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{self.path} has {self.path.stat().st_size:,} bytes; that is no file of a search")
        with self._stored(self.path) as study:
            stored = study.user_attrs.get(_ATTRIBUTE)
            settings = self.settings
            if not isinstance(stored, dict):
                raise InputError(f"{self.path} is no file of eie search; choose another folder")
            changed = [key for key in settings if key != "trials" and stored.get(key) != settings[key]]
            if changed:
                raise InputError(
                    f"{self.path} is of a search with other settings (they differ in {', '.join(changed)}); choose "
                    "another folder"
                )
            return {trial.number: self._outcome(trial) for trial in study.get_trials(deepcopy=False)}

    def _outcome(self, trial: Any) -> Outcome:
        """A trial of the file."""
        states = {theirs: ours for ours, theirs in _STATES.items()}
        more = trial.user_attrs
        try:
            return Outcome(
                number=trial.number, values=dict(trial.params), state=states[trial.state.name],
                objectives=tuple(map(float, trial.values or ())) if trial.state.name == "COMPLETE" else (),
                figures={str(k): float(v) for k, v in more["figures"].items()},
                curve=tuple(float(trial.intermediate_values[step]) for step in sorted(trial.intermediate_values)),
                rungs={str(k): float(v) for k, v in more["rungs"].items()}, message=str(more["message"]),
                seconds=float(more["seconds"]), cpu=float(more["cpu"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(f"{self.path}: trial {trial.number} was not written by eie search") from None

    def _write(self, outcome: Outcome) -> None:
        with self._stored(self.path) as study, optuna_quiet() as optuna:
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState[_STATES[outcome.state]],
                    values=list(outcome.objectives) or None, params=dict(outcome.values),
                    distributions=self._space, intermediate_values=dict(enumerate(outcome.curve, start=1)),
                    user_attrs={
                        "figures": dict(outcome.figures), "rungs": dict(outcome.rungs), "message": outcome.message,
                        "seconds": outcome.seconds, "cpu": outcome.cpu,
                    },
                )
            )  # fmt: skip


def _distribution(optuna: Any, variable: Variable) -> Any:
    kinds = optuna.distributions
    if variable.choices:
        return kinds.CategoricalDistribution(variable.choices)
    low, high = variable.ends
    kind = kinds.IntDistribution if variable.whole else kinds.FloatDistribution
    return kind(low, high, log=variable.log)


def _sampler(optuna: Any, search: Search) -> Any:
    kinds, seed = optuna.samplers, search.seed
    if search.sampler == "random":
        return kinds.RandomSampler(seed=seed)
    if search.sampler == "nsga2":
        return kinds.NSGAIISampler(seed=seed, population_size=search.population or 50)
    if search.sampler == "cmaes":
        return kinds.CmaEsSampler(seed=seed, popsize=search.population, warn_independent_sampling=False)
    return kinds.TPESampler(seed=seed, multivariate=True, constant_liar=True)
