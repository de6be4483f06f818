"""A changed setting reaches the containers that read it, and nobody else notices."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import pytest
from node import containers, on_node, play

pytestmark = pytest.mark.long

URL = "http://127.0.0.1:18180"


class Prober(threading.Thread):
    """Asks for a page ten times a second, and counts the answers that were none."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.asked = 0
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.asked += 1
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    pass
            except (urllib.error.URLError, OSError) as problem:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {problem}")

    def stop(self) -> None:
        self.over.set()
        self.join(10)


def test_a_setting_of_the_api() -> None:
    """The api gets another address with its new container; nginx has to learn it, without a page lost meanwhile."""
    before = containers()
    prober = Prober(f"{URL}/install")
    prober.start()
    run = play(dify_env={"LOG_LEVEL": "DEBUG"}, dify_health_deadline=90)
    prober.stop()
    assert run.status == 0, run.output[-6000:]
    assert run.changed > 0
    after = containers()
    for service in ("web", "db_postgres", "redis", "nginx"):
        assert after[f"/dify-{service}-1"] == before[f"/dify-{service}-1"], f"{service} does not read this setting"
    assert after["/dify-api-1"] != before["/dify-api-1"]
    assert "LOG_LEVEL=DEBUG" in on_node("docker exec dify-api-1 env")
    with urllib.request.urlopen(f"{URL}/console/api/setup", timeout=10) as answer:
        assert answer.status == 200
    assert prober.asked > 50
    assert prober.failures == []
    back = play(dify_health_deadline=90)
    assert back.status == 0, back.output[-6000:]
    assert play().changed == 0
