"""The order of operations of training: one run, or the members of a population in step with each other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from genjax import tree
from genjax.evaluators.base import Stopped
from genjax.families.base import TrainState
from genjax.io.leader import from_leader, is_leader
from genjax.io.workdir import Workdir
from genjax.train.compilation import Compilation
from genjax.train.cost import Cost
from genjax.train.divergence import evidence, unsound
from genjax.train.feed import make_feeds
from genjax.train.interrupt import Interrupt
from genjax.train.member import Member
from genjax.train.plan import Experiment, calls
from genjax.train.population import InTurns, MemberMetrics, Together
from genjax.train.progress import Progress, clock
from genjax.train.steps import Trainer, compile_functions
from genjax.types import UserError


class DivergedError(Exception):
    """Training could not go on; the message names the metric that says so, and the step."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      interrupt: whose ``signal`` is None when everything is finished.
      diverged: for each member that diverged, by name, the line that says where.
    """

    interrupt: Interrupt
    diverged: Mapping[str, str]


def train(plan: Experiment, workdir: Workdir, mesh: Mesh, started: float | None = None) -> Interrupt:
    """Trains one run to the end or to an interruption, continuing from the latest checkpoint in ``workdir``.

    Returns:
      The interruption, whose ``signal`` is None when the run is finished.

    Raises:
      DivergedError: a metric became NaN or infinite, or a gradient too large, and the config's policy was to stop, or
        nothing it did against it helped; checkpoints from before are kept.
      UserError: a checkpoint does not fit, an image can't be read, or ``checkpoint.best`` is a metric of no evaluation.
    """
    outcome = train_population({"": plan}, [workdir], mesh, started=started)
    if outcome.diverged:
        raise DivergedError(outcome.diverged[""])
    return outcome.interrupt


def train_population(
    plans: Mapping[str, Experiment],
    workdirs: Sequence[Workdir],
    mesh: Mesh,
    together: bool = False,
    hopeless: Callable[[str], str] = lambda name: "",
    interrupt: Interrupt | None = None,
    started: float | None = None,
) -> Outcome:
    """Trains every member to the end or to an interruption, each continuing from its own latest checkpoint.

    Members that stand at the same step advance side by side; one that is behind catches up first. One that diverges
    stops, is marked in its folder, and leaves the others alone; or goes back, and then is one that is behind.

    Args:
      plans: by name; they differ only in what is in ``state.hparams`` (``populations`` sees to that).
      workdirs: of the members, open for training.
      mesh: devices.
      together: whether the members are one program (``population.Together``) or take turns.
      hopeless: asked after each evaluation of a member, by its name, why it is not worth going on with; empty where it
        is. Such a member is saved and goes no further.
      interrupt: one that the caller has entered, where this is not all that a signal is to end.
      started: ``time.monotonic()`` at the start of the process, to say how long the first step took.

    Raises:
      UserError: a checkpoint does not fit, an image can't be read, or ``checkpoint.best`` is a metric of no evaluation.
    """
    with contextlib.nullcontext(interrupt) if interrupt else Interrupt() as interrupt:
        started = time.monotonic() if started is None else started
        loop = _Loop(plans, workdirs, mesh, together, hopeless, interrupt, started)
        try:
            loop.run()
        except BaseException:
            with contextlib.suppress(UserError):  # of a disk that is full: the first says what was lost
                loop.close()
            raise
        loop.close()
    return Outcome(interrupt, {member.name: member.diverged for member in loop.members if member.diverged})


class _Loop:
    """Members, and what they share: compiled programs, the clock, the progress display."""

    def __init__(
        self,
        plans: Mapping[str, Experiment],
        workdirs: Sequence[Workdir],
        mesh: Mesh,
        together: bool,
        hopeless: Callable[[str], str],
        interrupt: Interrupt,
        started: float,
    ):
        self.compilation = Compilation(started)
        self.members: list[Member] = []
        self.progress: Progress | None = None
        self.plan = plan = next(iter(plans.values()))
        self.mesh, self.together, self.hopeless, self.interrupt = mesh, together, hopeless, interrupt
        make = functools.partial(Trainer, plan.family, mesh, len(plan.train), plan.augment)
        limit = plan.divergence.max_grad_norm
        self.trainer = make(max_grad_norm=limit)
        self.advancing = make(members=True, max_grad_norm=limit) if together else self.trainer
        self.functions = compile_functions(plan.family, mesh)
        self.cadences = plan.cadences()
        self.cost = Cost(plan.config["accelerator"]["compute_dtype"], mesh.size)
        for (name, member_plan), workdir in zip(plans.items(), workdirs, strict=True):
            self.members.append(Member(member_plan, workdir, name, self._say))
        self.steps: dict[str, int] = {}  # of each member
        self.states: dict[str, TrainState] = {}
        self.resumed: dict[str, int] = {}  # the step at which this process took a member over
        # Of the group that advances at the moment:
        self.group: list[Member] = []
        self.running: InTurns | Together | None = None
        self.step = self.timed = 0  # steps whose time counts since the last log
        self.window_begin = time.monotonic()
        self.pending: tuple[int, list[Callable[[], MemberMetrics]]] | None = None

    def _say(self, line: str) -> None:
        if not is_leader():
            return
        if self.progress is None:
            print(line, flush=True)
        else:
            self.progress.say(line)

    def alive(self) -> list[Member]:
        return [member for member in self.members if not member.over]

    def run(self) -> None:
        unfinished = [member for member in self.alive() if not member.finished]
        if not unfinished:
            for member in self.members:
                total = self.plan.total_steps
                member.say(member.diverged or f"this run is finished: step {total} of {total}")
            return
        for member in unfinished:
            step = self._start(member)
            if step:
                member.say(f"continuing from step {step} of {self.plan.total_steps}")
        if is_leader():
            self.progress = Progress(self.plan.total_steps, min(self.steps.values()))
        self._describe()
        while self.interrupt.signal is None and (behind := self._next_group()):
            self._run_group(behind)
            for member in behind:
                if member.setback and self.interrupt.signal is None:
                    self._start(member)
        for member in unfinished:
            if self.interrupt.signal is None and not member.over:
                self._finish(member)
        if self.interrupt.signal is not None:
            self._leave([member for member in unfinished if not member.over and not member.finished])

    def close(self) -> None:
        if self.progress is not None:
            self.progress.close()
        if self.running is not None:
            self.running.close()
        with contextlib.ExitStack() as stack:
            for member in self.members:
                stack.callback(member.close)

    # Members on their own.

    def _start(self, member: Member) -> int:
        """Takes a member over at its latest checkpoint, or from the beginning; gives the step."""
        example = self.plan.train.gather(np.zeros(1, np.int64))
        step = from_leader(lambda: member.checkpoints.resume_step(member.say))
        if step is None:
            step = 0
            state = self.trainer.init(member.plan.config["seed"], example, member.plan.family.hparams)
            state = member.begin(state, self.mesh)
        else:
            state = member.resume(step, self.trainer.abstract_state(example), self.mesh)
        member.open(step, state)
        self.states[member.name], self.steps[member.name], self.resumed[member.name] = state, step, step
        return step

    def _state(self, member: Member) -> TrainState:
        if self.running is not None and member in self.group:
            return self.running.state(self.group.index(member))
        return self.states[member.name]

    def _finish(self, member: Member) -> None:
        """All evaluators on the last state, the last checkpoint, and the record of results."""
        trained = member.seconds
        try:
            state = self._state(member)
            member.finish(state, lambda chosen, logged: self._evaluate(member, chosen, logged), trained)
        except Stopped:
            return  # what the interruption was for
        member.say(f"finished {self.plan.total_steps} steps in {clock(trained)}")

    def _evaluate(self, member: Member, evaluators: Sequence, logged: bool) -> tuple[dict[str, float], dict[str, Any]]:
        step, state = self.steps[member.name], self._state(member)
        return member.evaluate(step, state, self.functions, self.mesh, list(evaluators), self.interrupt.agree, logged)

    def _leave(self, members: Sequence[Member]) -> None:
        """Saves what an interruption would lose; one that is to go back has all it needs in its folder."""
        assert self.interrupt.signal is not None
        for member in members:
            if not member.setback and not unsound(self._state(member), self.mesh):
                member.save(self.steps[member.name], self._state(member), {})
            member.checkpoints.wait()
        if members:
            self._say(
                f"interrupted by {self.interrupt.signal.name}: saved step "
                f"{min(self.steps[member.name] for member in members)} of {self.plan.total_steps}; "
                "the same command continues from there"
            )

    def _describe(self) -> None:
        state = next(iter(self.states.values()))
        sizes = {name: tree.size(params) for name, params in state.params.items()}
        parameters = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        many = f", {len(self.states)} members {'together' if self.together else 'in turns'}"
        self._say(
            f"{self.plan.family.name} on {self.plan.train.name}: parameters {parameters}"
            f"{many if len(self.members) > 1 else ''}"
        )

    # Members side by side.

    def _next_group(self) -> list[Member]:
        """The members that are furthest behind, none when all have arrived."""
        waiting = [m for m in self.alive() if m.name in self.steps and self.steps[m.name] < self.plan.total_steps]
        lowest = min((self.steps[member.name] for member in waiting), default=0)
        return [member for member in waiting if self.steps[member.name] == lowest]

    def _run_group(self, group: list[Member]) -> None:
        """Advances members that stand at one step until they meet the next ones, or to the end."""
        self.step = self.steps[group[0].name]
        ahead = [self.steps[m.name] for m in self.alive() if self.steps.get(m.name, 0) > self.step]
        until = min([*ahead, self.plan.total_steps])
        accelerator = self.plan.config["accelerator"]
        steps = lambda: calls(self.step, until, accelerator["steps_per_call"], self.cadences)  # noqa: E731
        self.group = group
        states = [self.states.pop(member.name) for member in group]
        kind = Together if self.together else InTurns
        feeds = functools.partial(make_feeds, self.advancing, self.plan.train, steps, accelerator["prefetch"])
        self.running = kind(feeds, states)
        del states
        self.window_begin, self.timed = time.monotonic(), 0
        for member in group:
            if self.step > 0 and not member.evaluated:
                self._due(member)
        for _, count in steps():
            if self.interrupt.signal is not None or any(member.setback for member in group):
                break
            advancing = sum(not member.over for member in group)
            if advancing == 0 or (self.together and 2 * advancing <= len(group)):
                break  # the rest is a smaller program: one compilation, and those that are over cost nothing more
            self._advance(count)
        self._read_pending()
        if self.step == self.plan.total_steps:
            for member in group:
                self._check(member)
        for i, member in enumerate(group):
            if not member.over:
                self.states[member.name] = self.running.state(i)
        self.running.close()
        self.running = None

    def _advance(self, count: int) -> None:
        """One compiled call, then what is due; the metrics of the call before are read while this one runs."""
        assert self.running is not None
        metrics = self.running.run(count, [not member.halted for member in self.group])
        self.interrupt.agree()
        first = not self.compilation.reported
        if first:
            for read in metrics:
                read()  # waits
            self._say(self.compilation.report())
            self.window_begin = time.monotonic()
        self.step += count
        self._read_pending()
        self.pending = (self.step, metrics)
        for member in self.group:
            self.steps[member.name] = self.step
            member.evaluated = False
        self.timed += 0 if first else count
        if self.step % self.plan.log_every == 0:
            self._log()
        start = time.monotonic()
        for member in self.group:
            self._due(member)
        self.window_begin += time.monotonic() - start  # the time of duties does not count as training speed

    def _read_pending(self) -> None:
        """Brings the last call's metrics to the host; a member that has diverged goes no further."""
        if self.pending is None:
            return
        assert self.running is not None
        (step, metrics), self.pending = self.pending, None
        for i, (member, read) in enumerate(zip(self.group, metrics, strict=True)):
            if member.halted or not (values := read()) or (found := member.read(step, values)) is None:
                continue
            self._diverge(member, *found, self.running.state(i))

    def _check(self, member: Member) -> bool:
        """Whether ``member`` can be judged and saved: no metric, and no parameter, says that it has diverged."""
        self._read_pending()
        if not member.halted and (bad := unsound(self._state(member), self.mesh)):
            self._diverge(member, self.step, bad, self._state(member))
        return not member.halted

    def _diverge(self, member: Member, step: int, bad: Mapping[str, float], state: TrainState) -> None:
        indices = self.trainer.indices(int(state.hparams["seed"]), step - 1, np)
        member.diverge(step, bad, evidence(state, step, indices, member.history))
        if member.diverged and member.name:
            member.say(member.diverged)

    def _log(self) -> None:
        self._read_pending()
        seconds = max(time.monotonic() - self.window_begin, 1e-9)
        rate = self.timed / seconds  # steps per second, of each member
        examples = self.plan.family.examples_per_step
        # Of everything the device does: the members' programs, or the one program of them all.
        flops = self.advancing.flops * (1 if self.together else sum(not member.halted for member in self.group))
        speed = self.cost.speed(rate, rate * examples, flops) if self.timed else {}
        means = [member.log(self.step, speed) for member in self.group if not member.halted]
        if self.timed and means and self.progress is not None:
            left = (self.plan.total_steps - self.step) / rate
            headline = {name: float(np.mean([m[name] for m in means])) for name in self.plan.family.headline}
            self.progress.update(self.step, rate * examples * len(means), left, headline)
        self.timed = 0
        self.window_begin = time.monotonic()

    def _due(self, member: Member) -> None:
        """Evaluations and checkpoints of this step.

        When the evaluations are interrupted, ``_leave`` saves the state and the next process begins with them.
        """
        done = self.step == self.plan.total_steps
        due = [s for s in self.plan.evaluators if s.every is not None and self.step % s.every == 0]
        scalars: dict[str, float] = {}
        hopeless = ""
        again = self.step == self.resumed[member.name]  # the state is saved, without these evaluations
        saves = again or self.plan.saves(self.step)
        if not done and (due or saves) and not self._check(member):
            return
        if due and not done:  # at the end every evaluator runs, in _finish
            try:
                scalars, _ = self._evaluate(member, due, logged=False)
            except Stopped:
                return
            member.check_best(scalars, due)
            hopeless = self.hopeless(member.name)
        member.evaluated = not done
        best_seen = self.plan.config["checkpoint"]["best"] in scalars
        if not done and (best_seen or hopeless or saves):
            member.save(self.step, self._state(member), scalars, replace=again)
            if len(self.members) > 1:
                member.checkpoints.wait()  # Orbax saves one at a time
        if hopeless:
            member.hopeless = hopeless
            member.say(f"stopped at step {self.step}: {hopeless}")
