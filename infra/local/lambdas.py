"""The local stand-in for the Lambda service: handlers in real processes, invoked as in AWS.

What is kept of AWS: the official runtime client and its environment variables, one invocation at a
time per process, warm processes, the payload quotas, reserved concurrency as a limit on what is in
flight, timeouts that kill, and what a caller is told about an error.

What is not:
- Capacity is the number of workers, where AWS starts as many environments as the concurrency
  allows: under the reserved concurrency a call waits for a free worker.
- Memory is not limited. RLIMIT_AS counts address space, of which pyarrow maps gigabytes unused.
- Only RequestResponse invocations of $LATEST; no tail of the log in the answer.

The clock and the ids are the real ones: what is timed here are real processes.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from infra.local.invoke_api import (
    PAYLOAD_MAX_BYTES,
    FunctionNotFound,
    Invocation,
    InvokeServer,
    RequestTooLarge,
    RuntimeUnavailable,
    Stopped,
    TooManyRequests,
)
from infra.local.runtime_api import Sandbox, Worker

if TYPE_CHECKING:  # it starts without site-packages, to say that they are missing
    from infra.local.switches import Switches
    from infra.topology import Function

ACCOUNT = "000000000000"
STOP_POLL_SECONDS = 0.1
INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "MILLRACE_TRANSPORT")
NO_CREDENTIALS = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


class LocalLambda:
    """Runs the functions in up to `workers[name]` processes each (one if not named).

    Each has one from the start, and another when more calls are in flight than it has processes.

    A worker sees the Lambda variables, `environment`, the function's own environment, and of the
    caller's environment only what is in `INHERITED`, so that a laptop's credentials stay out.
    Its output goes to `log_directory/<function>.log`, which is appended to. `root` is the code
    directory (LAMBDA_TASK_ROOT), where handler import paths start. `switches` are the event source
    mappings that functions may enable and disable.

    `start` and `stop` (or `with`) come once; all else is safe from any thread.
    """

    def __init__(  # noqa: PLR0913  what runs, how much of it, and its surroundings
        self,
        functions: Sequence[Function],
        *,
        workers: Mapping[str, int],
        environment: Mapping[str, str],
        log_directory: Path,
        root: Path,
        switches: Switches | None = None,
    ) -> None:
        names = {function.name for function in functions}
        if unknown := workers.keys() - names:
            raise ValueError(f"workers for unknown functions: {sorted(unknown)}")
        if min(workers.values(), default=1) < 1:
            raise ValueError("a function needs at least one worker")
        self._environment = dict(environment)
        self._log_directory = log_directory.absolute()
        self._root = root.absolute()
        self._switches = switches
        self._pools = {f.name: _Pool(f, workers.get(f.name, 1)) for f in functions}
        self._threads: list[threading.Thread] = []
        self._stopping, self._stop = socket.socketpair()  # a byte in one is seen by all workers
        self._server: InvokeServer | None = None

    def start(self) -> None:
        """Start a worker of each function, and return when it has asked for its first invocation.

        Raises RuntimeUnavailable, or InitFailed with the function's name and the end of its log;
        then nothing is left running.
        """
        try:
            _require_runtime()
            self._log_directory.mkdir(parents=True, exist_ok=True)
            self._server = InvokeServer(self.invoke, self._switches)
            self._spawn("lambda-http", self._server.serve_forever, STOP_POLL_SECONDS)
            ready: list[Future[None]] = []
            for pool in self._pools.values():
                for index in range(pool.workers):
                    name, sandbox = f"{pool.function.name}-{index}", self._sandbox(pool, index)
                    if index:
                        self._spawn(name, self._work_when_wanted, pool, sandbox)
                    else:
                        ready.append(Future())
                        self._spawn(name, self._work, pool, sandbox, ready[-1])
            for each in ready:
                each.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and thread; invocations in flight raise Stopped. Idempotent."""
        with suppress(OSError):
            self._stop.send(b".")
        for pool in self._pools.values():
            pool.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._server = None
        self._stop.close()
        self._stopping.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def invoke(self, name: str, payload: bytes) -> Invocation:
        """Run a function on a JSON payload (`b""` is `{}`) and wait for its answer.

        Raises a LambdaError for what Lambda refuses. A caller that stops waiting stops nothing.
        """
        pool = self._pools.get(name)
        if pool is None:
            raise FunctionNotFound(f"Function not found: {self._arn(name)}")
        if len(payload) > PAYLOAD_MAX_BYTES:
            limit = f"smaller than {PAYLOAD_MAX_BYTES} bytes for the InvokeFunction operation"
            raise RequestTooLarge(f"Request must be {limit}")
        with pool.reserved():
            return pool.submit(payload or b"{}").result()

    def kill(self, name: str) -> bool:
        """Kill a process of a function in the middle of an invocation; whether there was one.

        The invocation fails as in AWS, with Runtime.ExitError, and the worker gets a new process.
        """
        pool = self._pools.get(name)
        return pool is not None and pool.kill()

    @property
    def url(self) -> str:
        """Endpoint of the Invoke API, for an AWS SDK's `endpoint_url`."""
        if self._server is None:
            raise Stopped("not running")
        return self._server.url

    def proxy_url(self, name: str) -> str:
        """What to set as MINISTACK_LAMBDA_PROXY_URL on the function that ministack knows.

        ministack (1.5.33) then posts the event there for each invocation, from Invoke as from a
        workflow's task, on a new connection through `urllib` (which obeys `http_proxy`: set
        NO_PROXY). A 2xx answer is the function's, whatever it contains. Everything else fails the
        call, and a task, with an error name of ministack's own, so that Retry and Catch by an
        exception's name never match here although they do in AWS:

        - any other status: `Runtime.HandlerError`, whose errorMessage has the status and the first
          512 bytes of the body. So a function error is a 500 with its type first, without its
          stack trace; a throttle is a 429.
        - no answer within the Timeout that *ministack's* function has: `Sandbox.Timedout`. That
          time includes waiting for a worker. With the Timeout of the topology it comes a moment
          before ours; with a longer one, ours is a `Runtime.HandlerError`.
        - reserved concurrency set on ministack's own function: `Lambda.Unknown`.

        `States.TaskFailed` and `States.ALL` match all of these, `States.Timeout` none.
        """
        if name not in self._pools:
            raise FunctionNotFound(f"Function not found: {self._arn(name)}")
        return f"{self.url}/proxy/{quote(name)}"

    def _work(self, pool: _Pool, sandbox: Sandbox, ready: Future[None]) -> None:
        """A worker's thread: it alone talks to the process, which dies with it."""
        try:
            with closing(Worker(sandbox, self._stopping)) as worker:
                worker.prepare()
                ready.set_result(None)
                pool.serve(worker)
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def _work_when_wanted(self, pool: _Pool, sandbox: Sandbox) -> None:
        if pool.wanted():
            with closing(Worker(sandbox, self._stopping)) as worker:
                with suppress(Exception):  # the invocation tries again, and reports
                    worker.prepare()
                pool.serve(worker)

    def _spawn(self, name: str, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(name=name, target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _sandbox(self, pool: _Pool, index: int) -> Sandbox:
        function = pool.function
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        reserved = {
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{index}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python3.{sys.version_info.minor}",
            "LAMBDA_TASK_ROOT": str(self._root),
            "PYTHONPATH": str(self._root),
            "TZ": ":UTC",
            "_HANDLER": function.handler,
        }
        return Sandbox(
            function=function,
            arn=self._arn(function.name),
            environment={
                **inherited,
                **NO_CREDENTIALS,
                "AWS_ENDPOINT_URL_LAMBDA": self.url,
                **self._environment,
                **function.environment,
                **reserved,
            },
            log=self._log_directory / f"{function.name}.log",
            root=self._root,
        )

    def _arn(self, name: str) -> str:
        region = self._environment.get("AWS_REGION", "us-east-1")
        return f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}"


class _Pool:
    """A function's invocations: how many are in flight, and those that wait for a worker."""

    def __init__(self, function: Function, workers: int) -> None:
        self.function = function
        self.workers = workers
        self.jobs: SimpleQueue[tuple[bytes, Future[Invocation]] | None] = SimpleQueue()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._called = 1
        self._lock = threading.Lock()
        self._in_flight = 0
        self._busy: list[Worker] = []
        self._closed = False

    @contextmanager
    def reserved(self) -> Iterator[None]:
        with self._lock:
            if self._in_flight >= self.function.reserved_concurrency:
                raise TooManyRequests(f"Rate Exceeded. ({self.function.name})")
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def submit(self, payload: bytes) -> Future[Invocation]:
        answer: Future[Invocation] = Future()
        with self._lock:
            if self._closed:
                raise Stopped(f"{self.function.name}: stopped")
            self.jobs.put((payload, answer))
            if self._called < min(self._in_flight, self.workers):
                self._called += 1
                self._calls.put(item=True)
        return answer

    def wanted(self) -> bool:
        """Wait until another worker is wanted; False when the pool is closed instead."""
        return self._calls.get()

    def serve(self, worker: Worker) -> None:
        """Give a worker one job after another until the pool is closed."""
        while (job := self.jobs.get()) is not None:
            payload, answer = job
            with self._lock:
                self._busy.append(worker)
            try:
                answer.set_result(worker.invoke(payload))
            except Exception as error:  # noqa: BLE001  whatever it is, the caller gets it
                answer.set_exception(error)
            finally:
                with self._lock:
                    self._busy.remove(worker)
            with suppress(Exception):  # the next invocation tries again, and reports
                worker.prepare()

    def kill(self) -> bool:
        with self._lock:
            if self._busy:
                self._busy[0].kill()
            return bool(self._busy)

    def close(self) -> None:
        """The jobs before the Nones are taken by workers that stop, and so raise Stopped."""
        with self._lock:
            self._closed = True
            for _ in range(self.workers):
                self.jobs.put(None)
                self._calls.put(item=False)


def _require_runtime() -> None:
    """`awslambdaric` installs elsewhere without its compiled client, and fails when used."""
    modules = ("awslambdaric", "runtime_client")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing or sys.platform != "linux":
        raise RuntimeUnavailable(
            f"handlers run in awslambdaric, which has wheels for Linux only (this is "
            f"{sys.platform}, not found: {', '.join(missing) or 'nothing'}); use Linux, WSL 2 or "
            f"a Linux container"
        )
