"""Tasks in simulated time. Each runs on a stack of its own, until it waits.

    scheduler.spawn(work)     → Task, to begin now
    scheduler.sleep(seconds)    within a task: others go on meanwhile
    task.wait(seconds)          within a task: whether the other came to its end

Nothing runs in parallel and nothing asks the machine's clock: the same calls give the same run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NoReturn

import greenlet

IN_PLACE_MAX = 20_000  # events without time passing: more is a loop that waits for nothing


class Killed(greenlet.GreenletExit):  # type: ignore[misc]  # greenlet has no types
    """The task is dead: raised at the effect it was at. No handler of ours catches it."""


class StuckError(RuntimeError):
    """Time stands still: something asks for the same moment again and again."""


class Task:
    """Work on a stack of its own. At its end `result` or `error` is set.

    A `mortal` task is a process that may crash at any of its effects; its `children` are threads
    that end with it.
    """

    def __init__(
        self, scheduler: Scheduler, work: Callable[[], Any], name: str, *, mortal: bool
    ) -> None:
        self.name = name
        self.mortal = mortal
        self.done = False
        self.killed = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._scheduler = scheduler
        self._work = work
        self.children: list[Task] = []
        self._waiting: list[Callable[[], None]] = []
        self.greenlet = greenlet.greenlet(self._run)

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait within another task until this one has ended, at most so long; whether it has."""
        if not self.done:
            self._scheduler.suspend(self._waiting.append, seconds)
        return self.done

    def kill(self) -> None:
        """End it where it is, as a process is ended: it does nothing any more."""
        if self.done:
            return
        self.killed = True
        self._end()
        self._scheduler.at(self._scheduler.now, self._unwind)

    def crash(self) -> NoReturn:
        """End itself: what unwinds cannot have another effect."""
        self.killed = True
        raise Killed

    def _unwind(self) -> None:
        if self.greenlet:
            self._scheduler.enter(self)

    def _run(self) -> None:
        if self.killed:
            return
        try:
            self.result = self._work()
        except Killed:
            self.killed = True
        except Exception as error:  # noqa: BLE001  whoever waits for it gets it
            self.error = error
        self._end()

    def _end(self) -> None:
        if self.done:
            return
        self.done = True
        if self.killed:
            for child in self.children:
                child.kill()
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()


class Scheduler:
    """Simulated time and the tasks in it. `run` is called outside of any task."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.hub = greenlet.getcurrent()
        self.current: Task | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._in_place = 0

    def at(self, moment: float, event: Callable[[], None]) -> None:
        """Do something at a time, outside of any task."""
        self._count += 1
        heapq.heappush(self._events, (max(moment, self.now), self._count, event))

    def spawn(self, work: Callable[[], Any], name: str, *, mortal: bool = False) -> Task:
        task = Task(self, work, name, mortal=mortal)
        self.at(self.now, lambda: self._switch(task))
        return task

    def sleep(self, seconds: float) -> None:
        """Let time pass within a task; outside of one none passes."""
        if self.current is not None:
            self.suspend(_nobody, seconds)

    def suspend(self, register: Callable[[Callable[[], None]], None], seconds: float) -> None:
        """Leave the current task until what is registered is called, or so long."""
        task = self.current
        if task is None:
            raise RuntimeError("only a task can wait")
        if task.killed:
            raise Killed
        over = False

        def wake() -> None:
            nonlocal over
            if not over:
                over = True
                self.at(self.now, lambda: self._switch(task))

        register(wake)
        if seconds < float("inf"):
            self.at(self.now + max(seconds, 0.0), wake)
        self.hub.switch()
        if task.killed:
            raise Killed

    def run(self, until: float, idle: Callable[[], bool] = lambda: False) -> bool:
        """Go through what happens up to a time, until `idle`; whether it became so."""
        self.hub = greenlet.getcurrent()
        while self._events:
            if idle():
                return True
            moment = self._events[0][0]
            if moment > until:
                self.now = until
                return False
            self._in_place = self._in_place + 1 if moment == self.now else 0
            if self._in_place > IN_PLACE_MAX:
                raise StuckError(f"time stands still at {self.now}")
            self.now = moment
            heapq.heappop(self._events)[2]()
        return idle()

    def _switch(self, task: Task) -> None:
        if not task.done:
            self.enter(task)

    def enter(self, task: Task) -> None:
        """Go on in a task until it waits or ends."""
        before, self.current = self.current, task
        task.greenlet.parent = self.hub
        task.greenlet.switch()
        self.current = before


def _nobody(_: Callable[[], None]) -> None:
    """Nobody wakes who sleeps."""
