"""Real workers around a real Redis: one request, one image, whatever is killed, restarted or delivered twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.fakes.pictures import picture, signed
from tests.fakes.texts import ALT_TEXT, SCENE
from tests.queue.conftest import Install
from tests.queue.installation import Installation, children, kill
from tests.queue.services import PATIENCE, Redis, until

pytestmark = pytest.mark.slow


def test_a_caller_that_does_not_wait_is_told_where_the_image_will_be(installation: Installation) -> None:
    with installation.web(), installation.worker():
        answer = installation.ask(Prefer="respond-async")
        body = answer.json()
        assert (answer.status_code, body["status"], body["imageUrl"]) == (202, "pending", None)
        assert body["statusUrl"] == answer.headers["Location"] == f"{installation.url}/api/images/{body['id']}"
        assert answer.headers["Preference-Applied"] == "respond-async"
        assert int(answer.headers["Retry-After"]) > 0
        image = installation.ended(body["id"])
        assert image["status"] == "ready"
        assert requests.get(image["imageUrl"], timeout=PATIENCE).headers["Content-Type"] == "image/png"
    assert installation.paid == 1


def test_a_caller_that_waits_a_little_gets_the_image_if_it_is_there_by_then(installation: Installation) -> None:
    with installation.web(), installation.worker():
        answer = installation.ask(Prefer="wait=60")
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=60")
        assert answer.json()["status"] == "ready"
        installation.provider.hold()
        answer = installation.ask(Prefer="respond-async, wait=1")
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async, wait=1")
        installation.provider.release()
        assert installation.ended(answer.json()["id"])["status"] == "ready"


def test_the_same_key_makes_one_image_however_it_is_asked_for(installation: Installation) -> None:
    installation.provider.hold()
    with installation.web(), installation.worker():
        image_id = installation.queue(Idempotency_Key="key-1")
        again = installation.ask(Idempotency_Key="key-1", Prefer="respond-async")
        assert (again.status_code, again.json()["id"]) == (202, image_id)
        installation.provider.release()
        installation.ended(image_id)
        again = installation.ask(Idempotency_Key="key-1", Prefer="respond-async")
        assert (again.status_code, again.json()["id"]) == (200, image_id)
        assert again.headers["Idempotency-Replayed"] == "true"
    assert installation.paid == 1


def test_a_worker_that_is_killed_while_it_waits_costs_no_second_call(installation: Installation) -> None:
    installation.provider.hold()
    with installation.web():
        with installation.worker() as worker:
            image_id = installation.queue(Idempotency_Key="key-1")
            installation.provider.wait_for(1, PATIENCE)
            kill(worker)
        installation.provider.release()
        assert installation.look(image_id)["status"] == "pending"
        installation.let_time_pass(image_id, "started_at", "deadline_at")
        assert installation.look(image_id)["error"]["code"] == "internal_error"
        with installation.worker():
            installation.deliver(image_id)  # as the broker does, sooner or later
            installation.marker()
            assert (installation.look(image_id)["status"], installation.paid) == ("failed", 2)
            again = installation.ask(Idempotency_Key="key-1", Prefer="wait=60")  # the key is free
            assert (again.status_code, installation.paid) == (200, 3)


def test_a_task_delivered_twice_is_done_once(installation: Installation) -> None:
    installation.provider.hold()
    with installation.web(), installation.worker(), installation.worker():
        image_id = installation.queue()
        installation.provider.wait_for(1, PATIENCE)
        for _ in range(3):
            installation.deliver(image_id)
        installation.provider.release()
        assert installation.ended(image_id)["status"] == "ready"
        installation.deliver(image_id)
        installation.marker()
    assert installation.paid == 2  # with the marker


@pytest.mark.parametrize("seconds_away", [0, 1.5, 5])
def test_busy_workers_survive_a_broker_that_restarts(
    installation: Installation, redis: Redis, seconds_away: float
) -> None:
    installation.provider.hold()
    with installation.web(), installation.worker("--concurrency", "4") as worker:
        running = [installation.queue(f"Is being made {number}") for number in range(4)]
        installation.provider.wait_for(4, PATIENCE)
        waiting = [installation.queue(f"Waits in the queue {number}") for number in range(2)]
        redis.kill()
        time.sleep(seconds_away)
        redis.start()
        installation.provider.release()
        assert {installation.ended(image)["status"] for image in (*running, *waiting)} == {"ready"}
        installation.marker()
        assert worker.poll() is None
    assert installation.paid == 7  # with the marker


def test_what_the_broker_has_lost_is_published_again_by_the_workers(installation: Installation) -> None:
    with installation.web():
        image_id = installation.queue()
        installation.purge()
        installation.let_time_pass(image_id, "created_at")
        with installation.worker(), installation.worker():
            assert installation.ended(image_id)["status"] == "ready"
    assert installation.log.count(f"queue_republished image={image_id}") == installation.paid == 1


def test_a_broker_that_is_down_is_told_at_once_and_costs_nothing(installation: Installation, redis: Redis) -> None:
    redis.kill()
    with installation.web():
        answer = installation.ask(Prefer="respond-async", Idempotency_Key="key-1")
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert answer.json()["retryable"]
        assert "Retry-After" in answer.headers
        redis.start()
        with installation.worker():
            image_id = installation.queue(Idempotency_Key="key-1")
            assert installation.ended(image_id)["status"] == "ready"
    assert installation.paid == 1


def test_a_broker_that_does_not_answer_is_not_waited_for_for_long(install: Install) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        installation = install(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with installation.web():
            requests.get(f"{installation.url}/health", timeout=PATIENCE)  # it is up
            answer = installation.ask(Prefer="respond-async")
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
    assert answer.elapsed.total_seconds() < 30


def test_a_worker_that_is_stopped_finishes_what_it_has_begun(installation: Installation) -> None:
    installation.provider.hold()
    with installation.web(), installation.worker() as worker:
        image_id = installation.queue()
        installation.provider.wait_for(1, PATIENCE)
        worker.send_signal(signal.SIGTERM)
        until(lambda: "Warm shutdown" in installation.log, "the worker's stop")
        assert worker.poll() is None
        installation.provider.release()
        assert worker.wait(PATIENCE) == 0
        assert installation.look(image_id)["status"] == "ready"
    assert installation.paid == 1


def test_callers_wait_as_always_where_all_images_are_made_by_workers(install: Install, redis: Redis) -> None:
    installation = install(redis.url, IMAGE_RUN_ON_WORKERS="1")
    installation.provider.script("ok", "content_policy")
    with installation.web(), installation.worker():
        answer = installation.ask()
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert requests.get(answer.json()["imageUrl"], timeout=PATIENCE).status_code == 200
        refused = installation.ask()
        assert (refused.status_code, refused.json()["code"]) == (400, "content_rejected")
        assert not refused.json()["retryable"]
    assert "generation_started" in installation.log


def test_workers_do_as_many_at_once_as_they_are_told(installation: Installation) -> None:
    installation.provider.hold()
    with installation.web(), installation.worker("--concurrency", "3"):
        images = [installation.queue(f"Number {number}") for number in range(5)]
        installation.provider.wait_for(3, PATIENCE)
        assert sorted(installation.look(image)["status"] for image in images) == ["pending"] * 5
        assert installation.paid == 3
        installation.provider.release()
        assert {installation.ended(image)["status"] for image in images} == {"ready"}
    assert installation.paid == 5


def queue_findings(installation: Installation) -> list[str]:
    done = installation.run_manage("images_doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    return [f"{found['level']}: {found['sentence']}" for found in findings if found["section"] == "Queue"]


def test_the_doctor_sees_who_works(installation: Installation, redis: Redis) -> None:
    quiet = "ok: No request has been waiting for long."
    assert queue_findings(installation) == ["broken: The queue's broker answers, but no worker does.", quiet]
    with installation.worker() as _worker:
        until(lambda: " ready." in installation.log, "the worker")
        assert queue_findings(installation) == [
            "ok: The queue's broker answers, and so do its workers (1).",
            "ok: A probe task went through the queue; its worker sees the same rows and files.",
            quiet,
        ]
    redis.kill()
    assert queue_findings(installation)[0] == "broken: The queue's broker does not answer."


def test_the_doctor_tells_of_a_worker_that_sees_other_rows_or_other_files(
    installation: Installation, tmp_path: Path
) -> None:
    other = shutil.copy(tmp_path / "db.sqlite3", tmp_path / "other.sqlite3")
    for variables, what in (
        ({"STORAGE_ROOT": str(tmp_path / "unshared")}, "files"),
        ({"DATABASE_URL": f"sqlite:///{other}"}, "rows"),
    ):
        with installation.worker(**variables):
            until(lambda: len(queue_findings(installation)) > 2, "the worker")
            [_, finding, _] = queue_findings(installation)
        assert finding.startswith("broken: A worker (celery@")
        assert finding.endswith(f"does not see the same {what}.")


def test_a_pools_process_that_is_killed_ends_its_image_at_once(install: Install, redis: Redis) -> None:
    installation = install(redis.url, CELERY_POOL="prefork")
    installation.provider.hold()
    with installation.web(), installation.worker("--concurrency", "1") as worker:
        image_id = installation.queue()
        installation.provider.wait_for(1, PATIENCE)
        for child in children(worker):
            os.kill(child, signal.SIGKILL)
        image = installation.ended(image_id)
        assert (image["status"], image["error"]["code"]) == ("failed", "internal_error")
        installation.provider.release()
        installation.marker()
    assert installation.paid == 2  # with the marker


def test_a_hosts_own_time_limits_do_not_end_a_generation(install: Install, redis: Redis) -> None:
    """These options are what CELERY_TASK_SOFT_TIME_LIMIT and CELERY_TASK_TIME_LIMIT are in a settings module."""
    installation = install(redis.url, CELERY_POOL="prefork")
    installation.provider.hold()
    limits = ("--soft-time-limit", "1", "--time-limit", "2")
    with installation.web(), installation.worker("--concurrency", "1", *limits):
        image_id = installation.queue()
        installation.provider.wait_for(1, PATIENCE)
        time.sleep(4)  # both limits are over
        installation.provider.release()
        assert installation.ended(image_id)["status"] == "ready"
    assert installation.paid == 1


def test_many_callers_many_workers_one_image_each(installation: Installation) -> None:
    with installation.web(), installation.worker(), installation.worker(), ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda number: installation.ask(f"Number {number}", Prefer="wait=80"), range(24)))
    assert [answer.status_code for answer in answers] == [200] * 24
    assert len({answer.json()["imageUrl"] for answer in answers}) == installation.paid == 24


def test_a_worker_has_scenes_thought_up_and_keeps_what_the_vendor_signed(install: Install, redis: Redis) -> None:
    installation = install(redis.url, IMAGE_SCENE_PROVIDER="openai")
    provider = installation.provider
    provider.script("signed", "ok", "http_500")
    provider.script_texts("ok", "refused", "ok")
    with installation.web(), installation.worker():
        image = installation.ended(installation.queue("With a scene"))
        assert (image["altText"], image["contentCredentials"]) == (ALT_TEXT, True)
        bytes_sent = signed(picture("png", image["width"], image["height"], provider.image_bytes))
        assert requests.get(image["imageUrl"], timeout=PATIENCE).content == bytes_sent
        image = installation.ended(installation.queue("Without one"))
        assert (image["status"], image["altText"], image["contentCredentials"]) == ("ready", None, False)
        assert installation.ended(installation.queue("Without a picture"))["status"] == "failed"
    assert [len(provider.requests_for(kind)) for kind in ("texts", "images")] == [3, 3]
    assert [SCENE in request.body.decode() for request in provider.requests_for("images")] == [True, False, True]


def test_forty_requests_at_ten_in_ten_seconds_become_forty_pictures_with_few_refusals(
    installation: Installation,
) -> None:
    installation.provider.limit_rate(10, 10.0)
    with installation.web(), installation.worker("--concurrency", "5"), installation.worker("--concurrency", "5"):
        images = [installation.queue(f"Number {number}") for number in range(40)]
        assert [installation.ended(image)["status"] for image in images] == ["ready"] * 40
    assert installation.provider.refusals <= 20
    assert installation.paid == 40 + installation.provider.refusals


def test_two_workers_together_stay_below_a_known_limit(install: Install, redis: Redis) -> None:
    installation = install(redis.url, IMAGE_RATE_LIMITS="openai=5/4s")
    installation.provider.limit_rate(5, 2.0)  # each on its own would send ten
    with installation.web(), installation.worker("--concurrency", "5"), installation.worker("--concurrency", "5"):
        images = [installation.queue(f"Number {number}") for number in range(20)]
        assert [installation.ended(image)["status"] for image in images] == ["ready"] * 20
    assert (installation.paid, installation.provider.refusals) == (20, 0)


def test_a_caller_that_waits_is_served_before_five_thousand_that_do_not(install: Install, redis: Redis) -> None:
    installation = install(redis.url, IMAGE_RUN_ON_WORKERS="1")
    installation.fill_queue(5000)
    with installation.web(), installation.worker("--concurrency", "4"):
        until(lambda: installation.paid, "the first image")
        answer = installation.ask("Waits for it")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert installation.paid < 1000
