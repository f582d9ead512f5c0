"""The production server: granian, configured by the environment alone (`make serve`).

granian reads the heads of requests in threads of its own, so slow or silent callers hold none of ours. Each worker
adds what granian lacks (`worker_application`): only a few threads at a time wait for the rest of a request, a caller
that does not read its response is disconnected, and generations that a shutdown interrupts are marked as failed.

The process first checks whether it can work at all and, if not, says in one sentence what is wrong. Then it replaces
itself (`exec`) with a process that imports nothing of the project, starts the workers and supervises them. Each
worker imports the project itself, so a reload (SIGHUP) runs new code.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

BASE_DIR = Path(__file__).resolve().parent.parent

#: Seconds that a connection may take to send a request's head, or stay idle between two requests. Callers and proxies
#: usually close idle connections sooner.
HEAD_SECONDS = 20
#: How many threads may wait at once for the bodies of requests outside the API, and how long another waits for its
#: turn.
MAX_WAITING_BODIES, BODY_WAIT_SECONDS = 12, 1.0
#: Seconds after which a caller that reads nothing of its response is disconnected.
UNREAD_SECONDS = 4
#: Seconds of silence after which the system probes whether a caller's machine is still there, and in which it has to
#: answer. Longer than a generation, because with TCP_USER_TIMEOUT a single lost probe ends the connection.
PROBE_SECONDS, ANSWER_SECONDS = 300, 20
#: A worker marks its unfinished generations this many seconds before the end of a graceful shutdown.
SHUTDOWN_MARGIN = 5
#: Connections in a worker beyond its threads: idle, or still sending their request.
SPARE_CONNECTIONS = 8000
#: Open files a process has besides its connections: libraries, the database, listening sockets.
OTHER_FILES = 200
BACKLOG = 2048
#: Seconds that a new worker has to start during a reload before the old one stops accepting connections.
RELOAD_SECONDS = 10.0
#: How often a worker with requests under way asks itself for two more (`Waker`).
WAKE_SECONDS = 1.0
#: Seconds after which a thread that waits for Python's interpreter lock requests it from the thread that runs. With
#: the default of 0.005, each of hundreds of threads wakes up 200 times a second only to wait again: 15 % of the CPU
#: time of 500 simultaneous generations (measured). A thread that reads, writes or waits releases the lock at once
#: anyway.
SWITCH_INTERVAL = 0.05

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

logger = logging.getLogger("trygo_backend.server")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the server is to run, decided before it starts.

    Attributes:
        host: The address to listen on.
        port: The port.
        workers: How many processes.
        concurrency: The most generations at once in each process.
        spare_threads: Further threads in each process.
        grace: Seconds that a shutdown waits for requests under way.
        access_log: Whether each request is a line on standard output.
        metrics_folder: A folder of this server's own, removed when it ends, or "".
    """

    host: str
    port: int
    workers: int
    concurrency: int
    spare_threads: int
    grace: int
    access_log: bool
    metrics_folder: str


# --- Before the start ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, then run the server in place of this process.

    Args:
        arguments: The command line; by default `sys.argv[1:]`.
    """
    options = _parse(arguments)
    if options.plan:
        serve(Plan(**json.loads(options.plan)))
        return
    os.chdir(BASE_DIR)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")
    _exec_server(migrate=options.migrate)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trygo_backend.server", description="The production server.")
    parser.add_argument(
        "--no-migrate",
        dest="migrate",
        action="store_false",
        help="leave the database's tables as they are (also MIGRATE_ON_START=0), for many machines on one database",
    )
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _exec_server(*, migrate: bool) -> NoReturn:
    from django.core.exceptions import ImproperlyConfigured

    from . import preflight
    from .environment import Environment

    try:
        plan = prepare(Environment(os.environ), migrate=migrate)
    except (preflight.CannotServe, ImproperlyConfigured) as err:
        sys.exit(f"The server cannot start. {err}")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    # By default the C library makes up to sixteen heaps for the threads, and memory freed in one is of no use to the
    # others. Two heaps save a hundred megabytes at 1,000 generations and are no slower (measured).
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    command = [sys.executable, "-m", "trygo_backend.server", "--plan", json.dumps(asdict(plan))]
    os.execv(sys.executable, command)  # noqa: S606


def prepare(environment: Any, *, migrate: bool = True) -> Plan:
    """Do everything that has to be done before the server starts.

    Args:
        environment: The process's environment (`trygo_backend.environment.Environment`).
        migrate: Whether to apply migrations; `MIGRATE_ON_START=0` prevents it, too.

    Raises:
        trygo_backend.preflight.CannotServe: With the sentence for the operator.
        django.core.exceptions.ImproperlyConfigured: Likewise, from the settings.
    """
    import django

    from . import preflight

    migrate = environment.flag("MIGRATE_ON_START", True) and migrate
    port = environment.integer("PORT", 8000, minimum=0, maximum=65535)
    workers = environment.integer("WEB_CONCURRENCY", 1, minimum=1, maximum=256)
    spare_threads = environment.integer("WEB_SPARE_THREADS", 28, minimum=4, maximum=1000)
    access_log = environment.flag("ACCESS_LOG")
    django.setup()
    from images.conf import conf

    preflight.check_configuration()
    preflight.make_media_root()
    # Before the migrations: if another server listens already, this one must not touch the database.
    host = environment.text("BIND_ADDRESS", "0.0.0.0")  # noqa: S104  (a server is there to be reached)
    port = preflight.reserve_port(host, port)
    preflight.prepare_database(migrate=migrate)
    preflight.raise_open_files_limit()
    for sentence in superseded(environment):
        print(f"Warning: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    metrics_folder = ""
    if conf.metrics and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        metrics_folder = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="trygo-metrics-")
    return Plan(
        host=host,
        port=port,
        workers=workers,
        concurrency=conf.max_concurrency,
        spare_threads=spare_threads,
        grace=environment.integer("STOP_TIMEOUT", default_grace(), minimum=1, maximum=1800),
        access_log=access_log,
        metrics_folder=metrics_folder,
    )


def default_grace() -> int:
    """Seconds that a shutdown waits for the generations under way, which are paid for."""
    from images.conf import conf

    # If queue workers generate, a caller may first wait for a worker.
    return min(1800, math.ceil(conf.longest_run + (conf.deadline if conf.run_on_workers else 0)) + 30)


def superseded(environment: Any) -> list[str]:
    """A sentence for each variable that is set but no longer has any effect."""
    reasons = {
        "GUNICORN_CMD_ARGS": "The server is granian, and docs/settings.md names what it reads.",
        "WORKER_CPU_AFFINITY": "Workers run on whichever core the system chooses.",
    }
    return [f"{name} no longer has any effect. {why}" for name, why in reasons.items() if environment.text(name)]


# --- The process that supervises the workers ----------------------------------------------------------------


def serve(plan: Plan) -> None:
    """Run granian until SIGTERM or Ctrl-C; SIGHUP replaces the workers one after the other."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    threads = plan.concurrency + plan.spare_threads
    # A forked worker would inherit locks that other threads of this process hold at that moment.
    multiprocessing.set_start_method("spawn")
    os.environ["TRYGO_PLAN"] = json.dumps(asdict(plan))  # for the workers
    server = Granian(
        "trygo_backend.server:worker_application",
        factory=True,
        address=plan.host,
        port=plan.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=plan.workers,
        blocking_threads=threads,
        blocking_threads_idle_timeout=600,
        runtime_blocking_threads=8,
        backlog=BACKLOG,
        backpressure=connection_limit(threads),
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_SECONDS * 1000),
        respawn_failed_workers=True,
        respawn_interval=RELOAD_SECONDS,
        workers_kill_timeout=plan.grace,
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
        log_access=plan.access_log,
    )
    server.on_startup(lambda: threading.Thread(target=_announce, args=(plan,), daemon=True).start())
    try:
        server.serve()
    finally:
        if plan.metrics_folder:
            shutil.rmtree(plan.metrics_folder, ignore_errors=True)


def connection_limit(threads: int) -> int:
    """How many connections a worker may hold within the limit on open files.

    Each thread may hold two files besides its caller's connection: the provider's connection and a picture.
    """
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(threads + 1, min(threads + SPARE_CONNECTIONS, files - OTHER_FILES - 2 * threads))


def _reachable(host: str) -> str:
    """An address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _announce(plan: Plan) -> None:
    """Print the server's address as soon as it accepts connections."""
    host = _reachable(plan.host)
    while True:
        with suppress(OSError), socket.create_connection((host, plan.port), timeout=1):
            break
        time.sleep(0.02)
    shown = f"[{plan.host}]" if ":" in plan.host else plan.host
    print(f"Listening on http://{shown}:{plan.port}", flush=True)  # noqa: T201


_LOGGING: dict[str, Any] = {
    "formatters": {
        "line": {"format": "{asctime} {levelname} granian {message}", "style": "{"},
        "access": {"format": "{message}", "style": "{"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "_granian": {"handlers": ["console"], "level": "ERROR", "propagate": False},
        "granian.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}


# --- In each worker -----------------------------------------------------------------------------------------


def worker_application() -> Application:
    """The project's WSGI application, ready for its first request. granian calls this once in each worker."""
    plan = Plan(**json.loads(os.environ.pop("TRYGO_PLAN")))
    sys.setswitchinterval(SWITCH_INTERVAL)
    _stop_with_the_parent()
    _mark_unfinished_at_shutdown(plan.grace)
    from .wsgi import application

    _warm_up()
    _resume()
    guarded = Guarded(application, port=plan.port, concurrency=plan.concurrency)
    Waker(guarded, plan.host, plan.port).start()
    return guarded


def _warm_up() -> None:
    """Import the views and build the providers' clients now, since that would slow down the first request.

    A provider that cannot be warmed up is only logged: the rest of the server works without it.
    """
    from django.urls import get_resolver

    from images.conf import conf
    from images.providers import get_provider, get_text_provider

    get_resolver().url_patterns  # noqa: B018  (the access imports the URLconf)
    for alias in (*conf.providers, *(["scenes"] if conf.scene_provider else [])):
        try:
            (get_text_provider() if alias == "scenes" else get_provider(alias)).warm_up()
        except Exception as err:  # noqa: BLE001  (a provider may be third-party code)
            logger.warning("warm_up_failed provider=%s error=%s", alias, type(err).__name__)


def _resume() -> None:
    """Go on with what a stopped server has left waiting. Without the database that is for a later request."""
    from django.db import Error, connections

    from images.services import background

    try:
        background.resume()
    except Error as err:
        logger.warning("resume_failed error=%s", type(err).__name__)
    finally:
        connections.close_all()


def _stop_with_the_parent() -> None:
    """Stop if the supervising process is killed: otherwise its successor could not listen on the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()


def _mark_unfinished_at_shutdown(grace: float) -> None:
    """Begin no more generations in the background, and mark those still under way before a graceful shutdown ends."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)  # whatever handles the signal itself

    def wait() -> None:
        while reader.recv(1)[0] not in {signal.SIGTERM, signal.SIGINT}:
            pass
        from images.services import background

        background.stop()  # what waits is made after the next start
        time.sleep(grace - min(SHUTDOWN_MARGIN, grace / 3))
        from images.services.generation import abandon_generations

        abandon_generations()
        writer.close()

    threading.Thread(target=wait, daemon=True, name="stop").start()


class Guarded:
    """The application, with limits that keep callers from occupying all of the server's threads.

    Args:
        application: The project's.
        port: Where the server listens.
        concurrency: The most generations at once.
    """

    def __init__(self, application: Application, *, port: int, concurrency: int) -> None:
        self._application = application
        self._port = port
        self._own_names = frozenset(os.environ)
        self._is_first = True
        self._counting = threading.Lock()
        #: How many requests are being answered.
        self.under_way = 0
        # The API reads a body only once the caller is authenticated, so its limit can be higher.
        self._api_bodies = threading.Semaphore(concurrency)
        self._other_bodies = threading.Semaphore(MAX_WAITING_BODIES)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._is_first:  # granian's socket exists only now
            self._is_first = False
            limit_waiting_for_callers(self._port)
        # granian adds the process's environment to each request's, keys and passwords included.
        for name in self._own_names.intersection(environ):
            del environ[name]
        is_api = str(environ.get("PATH_INFO", "")).startswith("/api/")
        limit = self._api_bodies if is_api else self._other_bodies
        environ["wsgi.input"] = SharedBody(environ["wsgi.input"], limit)
        self._count(1)
        try:
            return self._application(environ, start_response)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self.under_way += change


class Waker(threading.Thread):
    """Sends two small requests a second to its own worker while requests are under way.

    granian 2.8.9 starts another thread when a request arrives and finds none idle, and may be mistaken about that by
    one if many arrive at once (`src/blocking.rs`: a thread counts as idle for a moment after it has taken a request).
    The request then waits until the next one arrives or another ends, which may take as long as a generation. The
    first of these two starts the thread that it needs, and the second the one for the first. With several workers
    the system chooses which one is asked, so it may take some seconds.

    Args:
        guarded: The worker's application, which knows whether requests are under way.
        host: The address that the server listens on.
        port: Its port.
    """

    def __init__(self, guarded: Guarded, host: str, port: int) -> None:
        super().__init__(daemon=True, name="waker")
        self._guarded = guarded
        self._address = (_reachable(host), port)

    def run(self) -> None:
        """Look once a second, as long as the process lives."""
        while True:
            time.sleep(WAKE_SECONDS)
            if self._guarded.under_way:
                with suppress(OSError):
                    self.wake()

    def wake(self) -> None:
        """Send the two requests, then wait for their answers.

        Raises:
            OSError: The server does not accept connections, or does not answer in time.
        """
        with (
            socket.create_connection(self._address, timeout=5) as first,
            socket.create_connection(self._address, timeout=5) as second,
        ):
            for connection in (first, second):
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            for connection in (first, second):
                connection.recv(4096)


class SharedBody:
    """A request's body (`wsgi.input`) for which only some of a worker's threads may wait at once.

    granian cannot end the wait for a caller that stops in the middle; this way the other threads go on serving.
    """

    def __init__(self, body: Any, limit: threading.Semaphore) -> None:
        self._body = body
        self._limit = limit

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, or all.

        Raises:
            TimeoutError: Too many other threads are waiting for a body.
        """
        return self._wait_for(self._body.read, *(() if size is None or size < 0 else (size,)))

    def readline(self, size: int = -1) -> bytes:
        """One line.

        Raises:
            TimeoutError: Too many other threads are waiting for a body.
        """
        return self._wait_for(self._body.readline)

    def _wait_for(self, read: Callable[..., Any], *args: int) -> bytes:
        if not self._limit.acquire(timeout=BODY_WAIT_SECONDS):
            raise TimeoutError("Too many callers have sent half a request.")
        try:
            return bytes(read(*args))
        finally:
            self._limit.release()


def limit_waiting_for_callers(port: int) -> None:
    """Make the operating system close connections whose callers do not read what was sent, or have vanished.

    A thread that sends a picture waits for its caller, and granian sets no limit: TCP_USER_TIMEOUT does. A caller
    whose machine or network goes away in the middle of a body sends nothing about it: keep-alive probes ask. What is
    set on the listening socket holds for every connection accepted from it. Only Linux has all of it.

    Args:
        port: The port that this process listens on.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT") or not os.path.isdir("/proc/self/fd"):
        return
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue  # a copy of a database's file, once closed, would give up SQLite's locks on it
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
            if found.family in {socket.AF_INET, socket.AF_INET6} and found.getsockname()[1] == port:
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ANSWER_SECONDS)


if __name__ == "__main__":
    main()
