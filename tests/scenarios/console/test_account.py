"""Whose Dify it is: another password, another owner, and an account that is locked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node import HOME, Owner, Step, ask_all, green, logins, on_node, play, refused, says

WRONG = "not-the-password-1"
pytestmark = pytest.mark.usefixtures("nothing_is_lost")


@pytest.fixture(autouse=True)
def few_attempts(owner: Owner) -> Iterator[None]:
    """Each test begins with an account at which nobody has failed."""
    forget_attempts(owner)
    yield
    forget_attempts(owner)


def forget_attempts(owner: Owner) -> None:
    """What the advice for a locked account says."""
    redis = 'docker exec dify-redis-1 sh -c \'redis-cli -a "$REDISCLI_AUTH" --no-auth-warning del "$0"\''
    on_node(f"{redis} login_error_rate_limit:{owner.email}")


def test_wrong_password(owner: Owner) -> None:
    """The whole role: one attempt, and the run ends there; what the node keeps is still what opens its Dify."""
    before, kept = logins(), on_node(f"cat {HOME}/secrets.json")
    run = play(owner, dify_admin_password=WRONG)
    assert run.status != 0
    says(run.message, "refuses email and password of", "Correct email or password", "Nothing was tried again")
    assert logins() - before == 1
    assert WRONG not in run.output
    # Not compared in the assertion: pytest prints what it compares.
    same = on_node(f"cat {HOME}/secrets.json") == kept
    assert same, "the run changed secrets.json"
    assert not green(owner, "dify_setup").changed


def test_wrong_password_of_each_module(owner: Owner) -> None:
    before = logins()
    wanted = {"dify_plugin": {"plugin": "langgenius/ollama"}, "dify_model": {"model": "x"}, "dify_app": {"name": "x"}}
    results = ask_all(owner, [Step(module, {"password": WRONG, **options}) for module, options in wanted.items()])
    for result in results:
        assert result.failed, result
        says(result.message, "refuses email and password", "Nothing was tried again")
    assert logins() - before == len(wanted)


def test_locked_account(owner: Owner) -> None:
    """Not even the right password opens it; the advice says what does."""
    for _ in range(7):
        owner.try_password(WRONG)
    refused(owner, "dify_setup", "is locked", "24 hours", "delete the key login_error_rate_limit")
    forget_attempts(owner)
    assert not green(owner, "dify_setup").changed


def test_another_owner(owner: Owner) -> None:
    other = "somebody.else@example.com"
    refused(owner, "dify_setup", "was set up before, with another owner or password", "Correct", email=other)
