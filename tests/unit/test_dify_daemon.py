"""The plugin daemon's envelope and errors, in the bytes that real daemons sent."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import NO_TENANT, Daemon, DaemonError, decode
from ansible_collections.llmops.stack.plugins.module_utils._http import Http
from ansible_collections.llmops.stack.tests.unit.servers import daemon as wire
from ansible_collections.llmops.stack.tests.unit.servers.daemon import KEY, PLUGIN, TENANT, FakeDaemon
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Scripted

CREDENTIALS_FAILED = (
    r'data: {"code":-500,"message":"{\"message\":\"{\\\"args\\\":{},'
    r"\\\"error_type\\\":\\\"CredentialsValidateFailedError\\\",\\\"message\\\":\\\"An error occurred during "
    r"credentials validation: API request failed with status code 404: "
    r"{\\\\\\\"error\\\\\\\": \\\\\\\"model \\\\\\\\\\\\\\\"missing\\\\\\\\\\\\\\\" not found, try pulling it first"
    r'\\\\\\\"}\\\"}\",\"error_type\":\"PluginInvokeError\",\"args\":null}","data":null}'
)


@pytest.mark.parametrize(
    ("status", "text", "cause"),
    [
        (401, wire.UNAUTHORIZED, "unauthorized"),
        (404, wire.NOT_FOUND, "not_installed"),
        (404, wire.NO_NODE, "no_node"),
        (404, wire.NO_NODE_OLD, "no_node"),
        (200, "data: " + wire.NO_INSTANCE, "no_instance"),
        (200, wire.error(-500, "no proper instance\nfailed to write request"), "no_instance"),
        (200, wire.KILLED, "killed"),
        (500, wire.REDIRECT, "redirect"),
        (200, wire.NO_TABLES, "no_tables"),
        (500, wire.NO_TABLES, "no_tables"),
        (200, wire.error(-500, 'ERROR: invalid input syntax for type uuid: "default" (SQLSTATE 22P02)'), "bad_tenant"),
        (200, wire.POSTGRES_DOWN, "database"),
        (200, wire.POSTGRES_GONE, "database"),
        (500, wire.REDIS_DOWN, "redis"),
        (200, wire.error(-500, "NOAUTH Authentication required."), "redis"),
        (400, wire.error(-400, "plugin_id is required", "PluginDaemonBadRequestError"), "refused_request"),
        (200, CREDENTIALS_FAILED, "plugin_raised"),
        (404, wire.ROUTE_NOT_FOUND, "not_a_daemon"),
        (404, "404 page not found", "not_a_daemon"),
        (502, "<html>502 Bad Gateway</html>", "not_a_daemon"),
        (500, "", "empty"),
        (200, wire.error(-500, "something new"), "other"),
    ],
)
def test_causes(status: int, text: str, cause: str) -> None:
    with pytest.raises(DaemonError) as caught:
        decode(status, text)
    assert caught.value.cause == cause


def test_three_levels_of_json() -> None:
    with pytest.raises(DaemonError) as caught:
        decode(200, CREDENTIALS_FAILED)
    assert caught.value.plugin_error == "CredentialsValidateFailedError"
    assert caught.value.message.startswith("An error occurred during credentials validation: API request failed")
    assert '"model \\"missing\\" not found' in caught.value.message


@pytest.mark.parametrize("data", [[], {}, True, None])
def test_data(data: Any) -> None:
    assert decode(200, wire.success(data)) == data


@pytest.mark.parametrize("bare", [True, False], ids=["0.0.3", "0.2.0"])
def test_both_shapes_of_the_list(bare: bool) -> None:
    with Scripted(FakeDaemon(bare_list=bare)).running() as server:
        found = Daemon(Http(), server.url, KEY).installed(TENANT)
    assert [one["plugin_id"] for one in found] == [PLUGIN]


def test_all_pages_are_read() -> None:
    many = [{"plugin_id": f"a/p{number}"} for number in range(300)]

    def pages(request: Any) -> Reply:
        page = int(request.query.split("page=")[1].split("&")[0])
        return Reply(200, wire.success({"list": many[(page - 1) * 256 : page * 256], "total": 300}))

    with Scripted(pages).running() as server:
        assert Daemon(Http(), server.url, KEY).installed(TENANT) == many
        assert len(server.requests) == 2


@pytest.mark.parametrize("trouble", [wire.NO_TABLES, wire.POSTGRES_DOWN, wire.REDIS_DOWN])
def test_what_is_behind_the_key_check_says_nothing_about_the_key(trouble: str) -> None:
    with Scripted(FakeDaemon(management=Reply(200, trouble))).running() as server:
        Daemon(Http(), server.url, KEY).check_key()
        with pytest.raises(DaemonError):
            Daemon(Http(), server.url, "k-wrong").check_key()
    assert {one.path for one in server.requests} == {f"/plugin/{NO_TENANT}/management/list"}


def test_dispatch_sends_what_a_daemon_wants() -> None:
    with Scripted(FakeDaemon()).running() as server:
        data = {"provider": "ollama", "credentials": {}}
        answers = Daemon(Http(), server.url, KEY).dispatch(
            TENANT, PLUGIN, "model/validate_provider_credentials", data, 2
        )
        assert list(answers) == [{"result": True, "credentials": {}}]
    sent = server.requests[0]
    assert sent.path == f"/plugin/{TENANT}/dispatch/model/validate_provider_credentials"
    assert sent.headers["x-plugin-id"] == PLUGIN
    assert sent.headers["content-type"] == "application/json"
    assert sent.json() == {"user_id": "llmops-health-check", "data": data}
