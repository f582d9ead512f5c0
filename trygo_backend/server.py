"""The production server: granian, configured by the environment alone (`make serve`).

granian reads requests' heads in threads of its own, so that callers who are slow or silent hold none of ours. What it
leaves open is closed in each worker, by `worker_application`: few threads wait for the rest of a request at a time, a
caller who does not read is cut off, and what a stop could not finish is marked.

The process looks first whether it can work at all and says in one sentence what stands in the way. Then it replaces
itself (`exec`) by one that imports nothing of the project, starts the workers and looks after them. Each worker
imports the project by itself, so that a reload (SIGHUP) takes up new code.
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

#: Seconds that a connection may take for a request's head, or stay idle between two requests. Longer than callers and
#: proxies usually keep an idle connection, so that they close it first.
HEAD_SECONDS = 20
#: How many threads may wait for the rest of strangers' requests at a time, and how long others wait for a place.
STRANGERS_PLACES, PLACE_SECONDS = 12, 1.0
#: Seconds after which a caller that takes nothing of an answer is cut off.
UNREAD_SECONDS = 4
#: Seconds before the end of a graceful stop at which a worker marks what it could not finish.
STOP_MARGIN = 5
#: Connections in a worker beyond its threads: idle, or still sending their request.
SPARE_CONNECTIONS = 8000
#: Open files a process has besides its connections: libraries, the database, listening sockets.
OTHER_FILES = 200
BACKLOG = 2048
#: Seconds that a new worker has for its start at a reload, before its predecessor takes no more connections.
RELOAD_SECONDS = 10.0
#: Seconds after which a thread that waits for Python's interpreter lock has it taken from the one that runs. With the
#: usual 0.005, hundreds of threads wake up two hundred times a second each, only to wait on: 15 % of the CPU time of
#: 500 simultaneous generations (measured). A thread that reads, writes or waits gives the lock away at once anyway.
SWITCH_INTERVAL = 0.05

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

logger = logging.getLogger("trygo_backend.server")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the server is to do, once everything has been looked at.

    Attributes:
        host: The address to listen on.
        port: The port.
        workers: How many processes.
        concurrency: The most generations at once in each.
        spare_threads: Of each, beyond those.
        grace: Seconds that a stop waits for what is under way.
        access_log: Whether each request is a line on standard output.
        metrics_folder: A folder of this server's own, to be removed in the end, or "".
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
    """Prepare, and become the server.

    Args:
        arguments: The command line, `sys.argv[1:]` when left out.
    """
    options = _parse(arguments)
    if options.plan:
        serve(Plan(**json.loads(options.plan)))
        return
    os.chdir(BASE_DIR)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")
    _become_the_server(migrate=options.migrate)


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


def _become_the_server(*, migrate: bool) -> NoReturn:
    from django.core.exceptions import ImproperlyConfigured

    from . import preflight
    from .environment import Environment

    try:
        plan = prepare(Environment(os.environ), migrate=migrate)
    except (preflight.CannotServe, ImproperlyConfigured) as err:
        sys.exit(f"The server cannot start. {err}")
    # The C library would make up to sixteen heaps for the threads, and what lies free in one is of no use to the
    # others: with two, a hundred megabytes less at 1,000 generations, and no slower (measured).
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    command = [sys.executable, "-m", "trygo_backend.server", "--plan", json.dumps(asdict(plan))]
    os.execv(sys.executable, command)  # noqa: S606


def prepare(environment: Any, *, migrate: bool = True) -> Plan:
    """Everything that comes before the server's own work.

    Args:
        environment: The process's (`trygo_backend.environment.Environment`).
        migrate: Whether to bring the database's tables up to date; `MIGRATE_ON_START=0` forbids it too.

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
    """Seconds that a stop waits for the generations under way: they are paid for."""
    from images.conf import conf

    # If workers make the images, a caller may wait for one as long as for the image.
    return min(1800, math.ceil(conf.deadline) * (2 if conf.run_on_workers else 1) + 30)


def superseded(environment: Any) -> list[str]:
    """A sentence for each variable that is set and means nothing any more."""
    reasons = {
        "GUNICORN_CMD_ARGS": "The server is granian, and docs/settings.md names what it reads.",
        "WORKER_CPU_AFFINITY": "Workers run on whichever core the system chooses.",
    }
    return [f"{name} has no effect any more. {why}" for name, why in reasons.items() if environment.text(name)]


# --- The process that looks after the workers ---------------------------------------------------------------


def serve(plan: Plan) -> None:
    """Run granian until SIGTERM or Ctrl-C; SIGHUP replaces the workers one after the other."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    threads = plan.concurrency + plan.spare_threads
    # A fork would take over whatever another thread of this process holds at that moment.
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


def _announce(plan: Plan) -> None:
    """Say where the server is to be reached, as soon as it is."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.host, plan.host)  # noqa: S104
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
    """The project's WSGI application, ready for its first request; granian calls this once in each worker."""
    plan = Plan(**json.loads(os.environ.pop("TRYGO_PLAN")))
    sys.setswitchinterval(SWITCH_INTERVAL)
    _end_with_the_parent()
    _mark_what_a_stop_cannot_finish(plan.grace)
    from .wsgi import application

    _warm_up()
    return Guarded(application, port=plan.port, concurrency=plan.concurrency)


def _warm_up() -> None:
    """Do before the first request what would make it slow: import the addresses' views, build the providers' clients.

    A provider that cannot be warmed up is only logged: the rest of the server works without it.
    """
    from django.urls import get_resolver

    from images.conf import conf
    from images.providers import get_provider

    get_resolver().url_patterns  # noqa: B018  (the access imports the URLconf)
    for alias in conf.providers:
        try:
            get_provider(alias).warm_up()
        except Exception as err:  # noqa: BLE001  (a provider may be anybody's code)
            logger.warning("warm_up_failed provider=%s error=%s", alias, type(err).__name__)


def _end_with_the_parent() -> None:
    """Stop if the process that looks after this one is killed: its successor could not take the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()


def _mark_what_a_stop_cannot_finish(grace: float) -> None:
    """Some seconds before a stop's patience ends, mark the generations that are still under way as failed."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)  # whatever handles the signal itself

    def wait() -> None:
        while reader.recv(1)[0] not in {signal.SIGTERM, signal.SIGINT}:
            pass
        time.sleep(grace - min(STOP_MARGIN, grace / 3))
        from images.services.generation import abandon_generations

        abandon_generations()
        writer.close()

    threading.Thread(target=wait, daemon=True, name="stop").start()


class Guarded:
    """The application, with limits on what its callers can do to the server's threads.

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
        # The API reads a body only when it knows the caller, so that strangers cannot use up its places.
        self._api_places = threading.Semaphore(concurrency)
        self._other_places = threading.Semaphore(STRANGERS_PLACES)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._is_first:  # only now granian has made its socket
            self._is_first = False
            limit_unread_answers(self._port, UNREAD_SECONDS)
        # granian adds the process's environment to each request's, keys and passwords included.
        for name in self._own_names.intersection(environ):
            del environ[name]
        is_api = str(environ.get("PATH_INFO", "")).startswith("/api/")
        places = self._api_places if is_api else self._other_places
        environ["wsgi.input"] = SharedBody(environ["wsgi.input"], places)
        return self._application(environ, start_response)


class SharedBody:
    """A request's body (`wsgi.input`), for which only some of a worker's threads may wait at a time.

    granian cannot end the wait for a caller who stops in the middle. The other threads go on serving.
    """

    def __init__(self, body: Any, places: threading.Semaphore) -> None:
        self._body = body
        self._places = places

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, or all.

        Raises:
            TimeoutError: Too many others are being waited for.
        """
        return self._wait_for(self._body.read, *(() if size is None or size < 0 else (size,)))

    def readline(self, size: int = -1) -> bytes:
        """One line.

        Raises:
            TimeoutError: Too many others are being waited for.
        """
        return self._wait_for(self._body.readline)

    def _wait_for(self, read: Callable[..., Any], *args: int) -> bytes:
        if not self._places.acquire(timeout=PLACE_SECONDS):
            raise TimeoutError("Too many callers have sent half a request.")
        try:
            return bytes(read(*args))
        finally:
            self._places.release()


def limit_unread_answers(port: int, seconds: float) -> None:
    """Have the system close connections whose callers take nothing of what waits for them.

    A thread that sends a picture waits for its caller, and granian waits with it. TCP_USER_TIMEOUT ends that: set on
    the listening socket it holds for every connection that comes by it. Only Linux has it.

    Args:
        port: The one that this process listens on.
        seconds: How long nothing may have been taken.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT") or not os.path.isdir("/proc/self/fd"):
        return
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
            if found.family in {socket.AF_INET, socket.AF_INET6} and found.getsockname()[1] == port:
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


if __name__ == "__main__":
    main()
