"""gunicorn's settings, from the environment. `serve.py` starts gunicorn with them; `GUNICORN_CMD_ARGS` overrides.

Threads, because a generation spends its life waiting, and because gunicorn's threads send files with `sendfile`;
`worker.py` says what is done beyond that.
Importing this module needs the project's settings and not gunicorn.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
import sys
from typing import Any

from images.conf import conf
from trygo_backend.environment import Environment

_env = Environment(os.environ)

#: Threads beyond the generations, so that files, lists and /health are answered while every generation waits.
SPARE_THREADS = _env.integer("WEB_SPARE_THREADS", 28, minimum=4, maximum=1000)
#: Connections beyond the threads: kept alive between two requests, or waiting for a thread.
SPARE_CONNECTIONS = 2000
#: Open files a process has besides its connections: libraries, the database, listening sockets.
OTHER_FILES = 200


def connection_limit(threads: int) -> int:
    """How many connections a worker may hold within the limit on open files, at least one more than threads.

    A worker that runs out of file descriptors while it accepts a connection stops, so it must not accept that many.
    Each thread may hold two besides its caller's connection: the provider's and a file's.
    """
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = files - OTHER_FILES - 2 * threads
    return max(threads + 1, min(threads + SPARE_CONNECTIONS, room))


wsgi_app = "trygo_backend.wsgi:application"
worker_class = "trygo_backend.worker.Worker"
workers = _env.integer("WEB_CONCURRENCY", 1, minimum=1, maximum=256)
threads = conf.max_concurrency + SPARE_THREADS
worker_connections = connection_limit(threads)

#: Seconds after which a thread that waits for Python's interpreter lock has it taken from the one that runs. With the
#: usual 0.005, hundreds of threads wake up two hundred times a second each, only to wait on: 15 % of the CPU time of
#: 500 simultaneous generations (measured). A thread that reads, writes or waits gives the lock away at once anyway.
SWITCH_INTERVAL = 0.05

#: Seconds before the end of a graceful stop at which a worker gives up, to mark what it could not finish.
STOP_MARGIN = 5

# The workers read it too; here a value that cannot work is told before they start.
_env.flag("WORKER_CPU_AFFINITY", True)

# A stop waits for the generations under way: they are paid for.
# Where workers make the images, a caller may wait for one as long as for the image.
graceful_timeout = math.ceil(conf.deadline) * (2 if conf.run_on_workers else 1) + 30
# The heartbeat comes from the worker's main thread, which only waits; this is for a process that is stuck as a whole.
timeout = 120
# Longer than callers and proxies usually keep an idle connection, so that it is them who close it.
keepalive = 20
# The heartbeat's file belongs into memory: a disk that hangs must not look like a worker that hangs.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

accesslog = "-" if _env.flag("ACCESS_LOG") else None
control_socket_disable = True

# Who the caller is and which scheme was used is decided in one place, by Django's settings (TRUST_PROXY_HEADERS).
# gunicorn's own default would believe any caller on this machine, also about SCRIPT_NAME and PATH_INFO.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""


def post_worker_init(worker: Any) -> None:
    """Do before the first request what would make it slow: import the addresses' views, build the providers' clients.

    A provider that cannot be warmed up is only logged: the rest of the server works without it.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    # Ctrl-C reaches master and workers alike, and the master then stops its workers. A worker that is interrupted a
    # second time while it stops waits for itself for ever (its handler takes the thread pool's lock twice).
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The master kills its workers at the end of the time; this copy of the settings is the worker's own.
    patience = worker.cfg.graceful_timeout
    worker.cfg.set("graceful_timeout", patience - min(STOP_MARGIN, patience // 3))
    from django.urls import get_resolver

    from images.providers import get_provider

    logger = logging.getLogger("trygo_backend.serve")
    get_resolver().url_patterns  # noqa: B018  (the access imports the URLconf)
    for alias in conf.providers:
        try:
            get_provider(alias).warm_up()
        except Exception as err:  # noqa: BLE001  (a provider may be anybody's code)
            logger.warning("warm_up_failed provider=%s error=%s", alias, type(err).__name__)


def child_exit(_server: Any, worker: Any) -> None:
    """In the master: the place of a worker that has ended is its successor's."""
    if hasattr(worker, "give_back_place"):  # GUNICORN_CMD_ARGS may name another class
        worker.give_back_place()


def worker_exit(_server: Any, _worker: Any) -> None:
    """Mark what could not be finished, after the graceful time is over. Mostly there is nothing to mark."""
    from django.apps import apps

    if apps.ready:  # not where the worker stopped because it could not start
        from images.services.generation import abandon_generations

        abandon_generations()
