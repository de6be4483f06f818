# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of a rendered .env, for every release there is data of, and for wishes of every kind."""

from __future__ import annotations

import io
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from ansible_collections.llmops.stack.plugins.module_utils import _dify_env as env
from ansible_collections.llmops.stack.plugins.module_utils import _dify_env_plugins as plugins
from ansible_collections.llmops.stack.plugins.module_utils import _dify_override as override
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HOST = {"cpus": 2, "memory_mb": 4096, "http_port": 80, "https_port": 443, "plugin_daemon_port": 5002}
SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{19,}")
STORES = {  # profile: where the API and the store hold their half of the login
    "qdrant": [("qdrant", "QDRANT_API_KEY", "QDRANT_API_KEY")],
    "pgvector": [("pgvector", "POSTGRES_PASSWORD", "PGVECTOR_PASSWORD")],
    "pgvecto-rs": [("pgvecto-rs", "POSTGRES_PASSWORD", "PGVECTO_RS_PASSWORD")],
    "chroma": [("chroma", "CHROMA_SERVER_AUTHN_CREDENTIALS", "CHROMA_AUTH_CREDENTIALS")],
    "milvus": [("minio", "MINIO_SECRET_KEY", ""), ("milvus-standalone", "MINIO_SECRET_ACCESS_KEY", "")],
    "opensearch": [("opensearch", "OPENSEARCH_INITIAL_ADMIN_PASSWORD", "OPENSEARCH_PASSWORD")],
    "elasticsearch": [("elasticsearch", "ELASTIC_PASSWORD", "ELASTICSEARCH_PASSWORD")],
    "oracle": [("oracle", "ORACLE_PWD", "")],
    "couchbase": [("couchbase-server", "COUCHBASE_ADMINISTRATOR_PASSWORD", "COUCHBASE_PASSWORD")],
    "oceanbase": [("oceanbase", "OB_TENANT_PASSWORD", "OCEANBASE_VECTOR_PASSWORD")],
    "vastbase": [("vastbase", "VB_PASSWORD", "VASTBASE_PASSWORD")],
    "opengauss": [("opengauss", "GS_PASSWORD", "OPENGAUSS_PASSWORD")],
}


def render(
    release: env.Release,
    overrides: dict[str, Any] | None = None,
    secrets: dict[str, str] | None = None,
    url: str = "",
    **wishes: Any,
) -> env.Rendered:
    return env.render(release, env.check_overrides(overrides or {}), secrets or {}, {**HOST, **wishes}, url)


def write(folder: pathlib.Path, release: env.Release, rendered: env.Rendered, **wishes: Any) -> pathlib.Path:
    """What the module puts into a release folder, as far as compose reads it."""
    wishes.update(env=rendered.env, profiles=rendered.profiles)
    laid_over = override.render_override(release.compose, wishes)
    folder.joinpath(".env").write_text(rendered.text)
    folder.joinpath("docker-compose.yaml").write_text(release.compose_text)
    folder.joinpath("docker-compose.override.yaml").write_text(yaml.safe_dump(laid_over, sort_keys=False))
    return folder


def secrets_of(release: env.Release) -> dict[str, str]:
    """The same for each call of a test."""
    return {"ADMIN_PASSWORD": "Ab1" * 8} | {one.name: f"Secret-{one.name}"[:24].ljust(24, "x") for one in env.SECRETS}


def public_values(services: dict[str, Any]) -> set[str]:
    """Published passwords among the values of the environment, and as words of commands and health checks."""
    words: set[str] = set()
    for service in services.values():
        words.update((service.get("environment") or {}).values())
        for part in (service.get("command"), (service.get("healthcheck") or {}).get("test")):
            words.update(re.split(r"[\s'\"]+|-p(?=\w)|Administrator:|(?<=password) ", " ".join(map(str, part or []))))
    return words & (env.PUBLIC_DEFAULTS | {"Administrator:password"})


class TestEveryRelease:
    def test_template_stays_in_order(self, release: env.Release) -> None:
        lines = render(release, url="https://dify.example.com").text.splitlines()
        shape = [line.split("=", 1)[0] for line in lines]
        template = [line.split("=", 1)[0] for line in release.template.splitlines()]
        assert shape[3 : 3 + len(template)] == template
        assert [line for line in lines if line.startswith("#")][2 : 2 + 5] == [
            line for line in release.template.splitlines() if line.startswith("#")
        ][:5]

    def test_every_key_once(self, release: env.Release) -> None:
        rendered = render(release, {"SOMETHING_NEW": "1"})
        keys = re.findall(r"(?m)^([A-Za-z_][\w.]*)=", rendered.text)
        assert len(keys) == len(set(keys))
        assert env.parse_env(rendered.text) == rendered.env

    def test_no_public_default_survives(self, release: env.Release) -> None:
        values = render(release).env
        assert [key for key, value in values.items() if value in env.PUBLIC_DEFAULTS] == []
        assert [key for key, value in values.items() if "difyai123456" in value] == []
        for secret in env.SECRETS:
            for key in secret.keys:
                if values.get(key):
                    assert SAFE.fullmatch(values[key]), key

    def test_what_was_replaced_is_said(self, release: env.Release) -> None:
        rendered = render(release)
        template = env.parse_env(release.template)
        expected = {key for key, value in template.items() if value in env.PUBLIC_DEFAULTS} | {"CELERY_BROKER_URL"}
        assert expected <= set(rendered.replaced_defaults)

    def test_twice_the_same(self, release: env.Release) -> None:
        first = render(release, {"LOG_LEVEL": "DEBUG"})
        second = render(release, {"LOG_LEVEL": "DEBUG"}, first.secrets)
        assert (second.text, second.secrets) == (first.text, first.secrets)

    def test_pairs_match(self, release: env.Release) -> None:
        values = render(release).env
        assert values["SANDBOX_API_KEY"] == values["CODE_EXECUTION_API_KEY"]
        assert values["WEAVIATE_API_KEY"] == values["WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS"]
        assert urlsplit(values["CELERY_BROKER_URL"]).password == values["REDIS_PASSWORD"]
        assert values.get("POSTGRES_PASSWORD", values["DB_PASSWORD"]) == values["DB_PASSWORD"]
        inner = {values[key] for key in ("PLUGIN_DIFY_INNER_API_KEY", "INNER_API_KEY_FOR_PLUGIN") if key in values}
        assert len(inner) <= 1
        assert len(values["INIT_PASSWORD"]) <= 30

    def test_guide_keys_are_there_with_the_truth(self, release: env.Release) -> None:
        rendered = render(release)
        assert rendered.env["CUSTOM_MODEL_ENABLED"] == "true"
        assert rendered.env["OLLAMA_API_BASE_URL"] == "host.docker.internal:11434"
        assert re.search(r"# .*No Dify release reads them.*\nCUSTOM_MODEL_ENABLED=true\nOLLAMA", rendered.text)
        assert rendered.unknown_keys == []

    def test_unknown_keys_are_said_and_written(self, release: env.Release) -> None:
        rendered = render(release, {"LOG_LEVLE": "DEBUG", "LOG_LEVEL": "DEBUG"})
        assert rendered.unknown_keys == ["LOG_LEVLE"]
        assert rendered.env["LOG_LEVLE"] == rendered.env["LOG_LEVEL"] == "DEBUG"
        assert re.search(r"# No file of this release mentions .*\nLOG_LEVLE=DEBUG", rendered.text)

    def test_database_and_profiles(self, release: env.Release) -> None:
        rendered = render(release, {"DB_HOST": "db", "COMPOSE_PROFILES": "weaviate"})
        services = override.active_services(release.compose, rendered.profiles)
        assert rendered.env["DB_HOST"] in services
        assert "weaviate" in services
        if "db_postgres" in release.compose["services"]:
            assert len(rendered.warnings) == 2, "the left-over host and the missing profile are both said"

    def test_ten_requests_at_a_time_are_not_enough(self, release: env.Release) -> None:
        values = render(release).env
        assert int(values["SERVER_WORKER_CONNECTIONS"]) >= 100
        large = render(release, cpus=16, memory_mb=64000).env
        assert (large["SERVER_WORKER_AMOUNT"], large["SERVER_WORKER_CONNECTIONS"]) == ("8", "400")
        assert int(large["POSTGRES_MAX_CONNECTIONS"]) >= 800
        chosen = render(release, {"SERVER_WORKER_AMOUNT": 3}, api_connections=77, celery_workers=9).env
        assert (chosen["SERVER_WORKER_AMOUNT"], chosen["SERVER_WORKER_CONNECTIONS"]) == ("3", "77")
        assert chosen["CELERY_WORKER_AMOUNT"] == "9"

    def test_url(self, release: env.Release) -> None:
        values = render(release, {"TRIGGER_URL": "https://hooks.example.com"}, url="https://dify.example.com:8443/").env
        assert values["FILES_URL"] == values["APP_WEB_URL"] == "https://dify.example.com:8443"
        assert values["TRIGGER_URL"] == "https://hooks.example.com"
        assert values["CONSOLE_API_URL"] == values["APP_API_URL"] == ""
        template = env.parse_env(release.template)
        if "NEXT_PUBLIC_SOCKET_URL" in template:
            assert values["NEXT_PUBLIC_SOCKET_URL"] == "wss://dify.example.com:8443"
        if "ENDPOINT_URL_TEMPLATE" in template:
            assert values["ENDPOINT_URL_TEMPLATE"] == "https://dify.example.com:8443/e/{hook_id}"
        assert "localhost" not in render(release, url="http://d").env.get("ENDPOINT_URL_TEMPLATE", "")

    def test_compose_takes_it(self, dify_tag: str, release: env.Release, composed: Any) -> None:
        rendered, services = composed(dify_tag)
        active = override.active_services(release.compose, rendered.profiles)
        assert sorted(services) == sorted([*active, "otel_collector"])
        assert public_values(services) == set()
        api = services["api"]["environment"]
        assert api["UPLOAD_FILE_SIZE_LIMIT"] == "77"
        database = services[rendered.env["DB_HOST"]]["environment"]
        assert database["POSTGRES_PASSWORD"] == api["DB_PASSWORD"] == rendered.env["DB_PASSWORD"]
        assert services["sandbox"]["environment"]["API_KEY"] == api["CODE_EXECUTION_API_KEY"]
        assert api.get("PLUGIN_REMOTE_INSTALL_PORT", "5003") == "5003", (
            "a number, although it is published on an address"
        )
        if "plugin_daemon" in services:
            daemon = services["plugin_daemon"]["environment"]
            assert daemon["SERVER_KEY"] == api["PLUGIN_DAEMON_KEY"]
            assert daemon["DIFY_INNER_API_KEY"] == api["INNER_API_KEY_FOR_PLUGIN"]
            assert daemon["DB_PASSWORD"] == rendered.env["DB_PASSWORD"]
        if "agent_backend" in services:
            backend = services["agent_backend"]["environment"]
            assert backend["DIFY_AGENT_REDIS_URL"] == f"redis://:{rendered.env['REDIS_PASSWORD']}@redis:6379/2"
            assert backend["DIFY_AGENT_PLUGIN_DAEMON_API_KEY"] == rendered.env["PLUGIN_DAEMON_KEY"]
            token = services["local_sandbox"]["environment"]["SHELLCTL_AUTH_TOKEN"]
            assert token == backend["DIFY_AGENT_SHELLCTL_AUTH_TOKEN"] != ""


def test_secrets_outlive_every_upgrade(releases: dict[str, env.Release]) -> None:
    kept: dict[str, str] = {}
    for release in releases.values():
        rendered = render(release, secrets=kept)
        assert kept.items() <= rendered.secrets.items()
        for secret in env.SECRETS:
            for key in secret.keys:
                assert rendered.env.get(key) in (None, rendered.secrets.get(secret.name)), key
        kept = rendered.secrets
    back = render(next(iter(releases.values())), secrets=kept)
    assert back.secrets == kept


@pytest.mark.parametrize("tag", ["0.15.3", "1.12.1", "1.16.0"])
def test_other_vector_stores(tag: str, releases: dict[str, env.Release], compose: Any, tmp_path: pathlib.Path) -> None:
    release = releases[tag]
    offered = str([one.get("profiles") for one in release.compose["services"].values()])
    stores = [store for store in STORES if f"'{store}'" in offered]
    kept: dict[str, str] = {}
    api = {}
    for store in stores:
        rendered = render(release, {"VECTOR_STORE": store}, kept)
        assert rendered.env["VECTOR_STORE"] == store and store in rendered.profiles
        api[store], kept = rendered.env, rendered.secrets
    assert api["qdrant"]["QDRANT_URL"] == "http://qdrant:6333" or tag == "0.15.3"
    # All of them in one project, because compose takes its time.
    everything = render(release, {"COMPOSE_PROFILES": ",".join(stores)}, kept)
    config = compose.config(write(tmp_path, release, everything))
    assert public_values(config["services"]) == set()
    for store in stores:
        for service, key, other in STORES[store]:
            value = config["services"][service]["environment"][key]
            assert SAFE.fullmatch(value), (store, key)
            assert not other or api[store][other] == value, (store, other)


class TestOverrides:
    @pytest.fixture
    def newest(self, releases: dict[str, env.Release]) -> env.Release:
        return releases["1.16.0"]

    @pytest.fixture
    def oldest(self, releases: dict[str, env.Release]) -> env.Release:
        return releases["0.15.3"]

    def test_one_half_of_a_pair_is_enough(self, oldest: env.Release) -> None:
        for key in ("DB_PASSWORD", "POSTGRES_PASSWORD"):
            rendered = render(oldest, {key: "correct-horse"})
            assert rendered.env["DB_PASSWORD"] == rendered.env["POSTGRES_PASSWORD"] == "correct-horse"
            assert rendered.secrets["DB_PASSWORD"] == "correct-horse"
            again = render(oldest, {}, rendered.secrets)
            assert again.env["POSTGRES_PASSWORD"] == "correct-horse"

    def test_two_halves_that_differ_are_refused(self, oldest: env.Release) -> None:
        with pytest.raises(env.EnvError, match="DB_PASSWORD and POSTGRES_PASSWORD must hold the same") as caught:
            render(oldest, {"DB_PASSWORD": "correct-horse", "POSTGRES_PASSWORD": "battery-staple"})
        assert "horse" not in str(caught.value) and "staple" not in str(caught.value)

    def test_a_list_of_weaviate_keys(self, newest: env.Release) -> None:
        allowed = "WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS"
        assert render(newest, {allowed: "one-key-x, two-key-x"}).env["WEAVIATE_API_KEY"] == "one-key-x"
        both = render(newest, {allowed: "one-key-x,two-key-x", "WEAVIATE_API_KEY": "two-key-x"})
        assert (both.env[allowed], both.env["WEAVIATE_API_KEY"]) == ("one-key-x,two-key-x", "two-key-x")
        with pytest.raises(env.EnvError, match="same value"):
            render(newest, {allowed: "one-key-x,two-key-x", "WEAVIATE_API_KEY": "three-key-x"})

    def test_an_empty_password_would_be_a_public_one(self, newest: env.Release) -> None:
        with pytest.raises(env.EnvError, match="DB_PASSWORD is empty"):
            render(newest, {"DB_PASSWORD": ""})
        assert render(newest, {"INIT_PASSWORD": ""}).env["INIT_PASSWORD"] == ""
        with pytest.raises(env.EnvError, match="30 characters"):
            render(newest, {"INIT_PASSWORD": "x" * 31})

    def test_a_public_password_is_called_one(self, newest: env.Release) -> None:
        rendered = render(newest, {"DB_PASSWORD": "difyai123456"})
        assert rendered.env["DB_PASSWORD"] == "difyai123456"
        assert [one for one in rendered.warnings if "everybody knows it" in one]

    @pytest.mark.parametrize("password", ["a b", "a'b", 'a"b', "a$b", "a;b", "a\\b", "a&b", "`id`"])
    def test_redis_password_stands_bare_in_a_shell(self, newest: env.Release, password: str) -> None:
        with pytest.raises(env.EnvError, match="REDIS_PASSWORD may hold"):
            render(newest, {"REDIS_PASSWORD": password})

    def test_redis_urls_follow(self, newest: env.Release) -> None:
        values = render(newest, {"REDIS_PASSWORD": "p@ss/w:rd"}).env
        for key in ("CELERY_BROKER_URL", "DIFY_AGENT_REDIS_URL"):
            assert unquote(urlsplit(values[key]).password or "") == "p@ss/w:rd"
            assert urlsplit(values[key]).hostname == "redis"
        away = {"REDIS_HOST": "cache.example.com", "REDIS_PORT": 6380, "REDIS_USERNAME": "dify", "REDIS_USE_SSL": True}
        values = render(newest, {**away, "REDIS_PASSWORD": "elsewhere"}).env
        assert values["CELERY_BROKER_URL"] == "rediss://dify:elsewhere@cache.example.com:6380/1"
        assert values["DIFY_AGENT_REDIS_URL"] == "rediss://dify:elsewhere@cache.example.com:6380/2"

    def test_a_broker_of_ones_own(self, newest: env.Release) -> None:
        own = "sentinel://:pw@s1:26379/1;sentinel://:pw@s2:26379/1"
        assert render(newest, {"CELERY_BROKER_URL": own}).env["CELERY_BROKER_URL"] == own
        stale = render(newest, {"CELERY_BROKER_URL": "redis://:difyai123456@redis:6379/3"})
        assert stale.env["CELERY_BROKER_URL"] == f"redis://:{stale.env['REDIS_PASSWORD']}@redis:6379/3"
        assert stale.warnings

    def test_database_elsewhere(self, newest: env.Release, oldest: env.Release) -> None:
        rendered = render(newest, {"DB_HOST": "pg.example.com"})
        assert rendered.env["DB_HOST"] == "pg.example.com"
        assert rendered.profiles == ["weaviate", "collaboration"]
        assert render(oldest, {"DB_HOST": "pg.example.com"}).env["DB_HOST"] == "pg.example.com"

    def test_mysql(self, newest: env.Release) -> None:
        rendered = render(newest, {"DB_TYPE": "mysql"})
        assert [rendered.env[key] for key in ("DB_HOST", "DB_PORT", "DB_USERNAME")] == ["db_mysql", "3306", "root"]
        assert rendered.env["MYSQL_MAX_CONNECTIONS"] == "1000"
        assert "mysql" in rendered.profiles and "postgresql" not in rendered.profiles

    def test_profiles_of_ones_own(self, newest: env.Release) -> None:
        own = "${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql},unstructured"
        assert render(newest, {"COMPOSE_PROFILES": own}).profiles == ["weaviate", "postgresql", "unstructured"]

    def test_renamed_key_names_its_successor(self, newest: env.Release) -> None:
        rendered = render(newest, {"POSTGRES_PASSWORD": "correct-horse"})
        assert rendered.unknown_keys == ["POSTGRES_PASSWORD"]
        assert rendered.env["DB_PASSWORD"] == "correct-horse"
        assert "reads DB_PASSWORD instead" in rendered.text

    def test_ports(self, newest: env.Release, compose: Any, tmp_path: pathlib.Path) -> None:
        rendered = render(
            newest, {"EXPOSE_PLUGIN_DEBUGGING_PORT": "5103"}, http_port=8080, https_port=0, bind_address="::1"
        )
        services = compose.config(write(tmp_path, newest, rendered))["services"]
        plain, tls = services["nginx"]["ports"]
        assert (plain["host_ip"], plain["published"]) == ("::1", "8080")
        assert tls["host_ip"] == "127.0.0.1" and not tls.get("published")
        world, loopback = services["plugin_daemon"]["ports"]
        assert world["published"] == "5103" and not world.get("host_ip"), "the operator's word counts"
        assert (loopback["host_ip"], loopback["published"]) == ("127.0.0.1", "5002")
        assert services["api"]["environment"]["PLUGIN_REMOTE_INSTALL_PORT"] == "5103"

    def test_fixed_passwords_of_a_store_are_said(self, newest: env.Release) -> None:
        assert "MATRIXONE_PASSWORD" in render(newest, {"VECTOR_STORE": "matrixone"}).warnings[0]
        changed = render(newest, {"VECTOR_STORE": "matrixone", "MATRIXONE_PASSWORD": "changed-it"})
        assert "MATRIXONE_PASSWORD" not in str(changed.warnings)

    @pytest.mark.parametrize(
        ("given_", "said"),
        [
            ({"KEY": "a\nB=c"}, "KEY holds a line break"),
            ({"KEY": "a\rb"}, "KEY holds a line break"),
            ({"KEY": "a\0b"}, "KEY holds a line break or a NUL"),
            ({"KEY\nX": "a"}, "no name for a key"),
            ({"lower": "a"}, "no name for a key"),
            ({"A-B": "a"}, "no name for a key"),
            ({"1A": "a"}, "no name for a key"),
            ({"": "a"}, "no name for a key"),
            ({"KEY": ["a"]}, "KEY is a list"),
            ({"KEY": {"a": 1}}, "KEY is a dict"),
        ],
    )
    def test_what_no_env_can_hold(self, given_: dict[str, Any], said: str) -> None:
        with pytest.raises(env.EnvError, match=said):
            env.check_overrides(given_)

    def test_types(self) -> None:
        wanted = {"A": True, "B": False, "C": 1, "D": 0, "E": None, "F": 0.5, "G": "True"}
        expected = {"A": "true", "B": "false", "C": "1", "D": "0", "E": "", "F": "0.5", "G": "True"}
        assert env.check_overrides(wanted) == expected

    @pytest.mark.parametrize(
        "url", ["dify.example.com", "ftp://x", "http://x/path", "http://", "http://a b", "http://x?y"]
    )
    def test_url_that_dify_cannot_have(self, newest: env.Release, url: str) -> None:
        with pytest.raises(env.EnvError, match="url must be"):
            render(newest, url=url)

    def test_daemon_port_is_a_number(self, newest: env.Release) -> None:
        for port in ("0.0.0.0:5002", "70000", "", "x"):
            with pytest.raises(env.EnvError, match="EXPOSE_PLUGIN_DAEMON_PORT"):
                render(newest, {"EXPOSE_PLUGIN_DAEMON_PORT": port})


NASTY = [
    "plain", "two words", "a#b", "a #b", "#x", "a$b", "$HOME", "$$", "end$", "it's", 'say "hi"', "both ' and \"", "'",
    '"', "back\\slash", "back\\n", "end\\", "\\'", "q'$x", " lead", "trail ", "\t", "`id`", "$(id)", "a=b", '{"a": 1}',
    "é€𝄞", "%Y-%m-%d", "!x", "*", "~", "a;b", "null", "true", "'quoted'", '"quoted"', "a\\$b", "\\\\", "x'y\\", "-n",
]  # fmt: skip
GUIDE = {"CUSTOM_MODEL_ENABLED", "OLLAMA_API_BASE_URL"}
BRACES = ["${X}", "a${X:-y}b", "${", "q'${x}"]
PlainKeys = list[tuple[str, list[str]]]
WORDS = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=30)


class TestQuoting:
    @given(WORDS)
    def test_read_back_by_this_module(self, value: str) -> None:
        assert env.parse_env(f"KEY={env.quote(value)}\n") == {"KEY": value}

    def test_read_back_by_compose(self, releases: dict[str, env.Release], compose: Any, tmp_path: pathlib.Path) -> None:
        """Through interpolation (older releases) and through env_file (from 1.14.1 on)."""
        values = {f"NASTY_{number}": value for number, value in enumerate(NASTY + BRACES)}
        rendered = render(releases["1.16.0"], values)
        tmp_path.joinpath(".env").write_text(rendered.text)
        asked = {f"SEEN_{key}": f"${{{key}}}" for key in values}
        service = {"image": "busybox", "env_file": ["./.env"], "environment": asked}
        tmp_path.joinpath("docker-compose.yaml").write_text(yaml.safe_dump({"services": {"one": service}}))
        seen = compose.config(tmp_path)["services"]["one"]["environment"]
        # Compose doubles the dollar signs in what it prints, so that it can be read as a compose file again.
        for key, value in values.items():
            assert seen[f"SEEN_{key}"].replace("$$", "$") == value, (value, env.quote(value))
            assert seen[key].replace("$$", "$") == value, (value, env.quote(value))
        for key, value in rendered.env.items():
            assert seen[key].replace("$$", "$") == value, key

    def test_read_back_by_python_dotenv(self) -> None:
        dotenv = pytest.importorskip("dotenv")
        for value in NASTY:
            if "$" in value and (value.endswith("\\") or "\\'" in value):
                continue
            stream = io.StringIO(f"BEFORE=x\nKEY={env.quote(value)}\nAFTER=y\n")
            assert dotenv.dotenv_values(stream=stream) == {"BEFORE": "x", "KEY": value, "AFTER": "y"}

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        number=st.integers(0, 1000),
        words=st.lists(WORDS, min_size=8, max_size=8),
        new=st.lists(st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True), max_size=4),
        picks=st.lists(st.integers(0, 10000), max_size=4),
    )
    def test_no_override_is_lost(
        self,
        plain_keys: PlainKeys,
        load: Callable[[str], env.Release],
        number: int,
        words: list[str],
        new: list[str],
        picks: list[int],
    ) -> None:
        tag, plain = plain_keys[number % len(plain_keys)]
        keys = [*new, *(plain[pick % len(plain)] for pick in picks)]
        wanted = {key: word for key, word in zip(keys, words) if not env.is_sensitive(key)}
        rendered = render(load(tag), wanted)
        assert wanted.items() <= env.parse_env(rendered.text).items()
        assert set(rendered.unknown_keys) == set(wanted) - set(plain) - GUIDE

    @pytest.fixture
    def plain_keys(self, releases: dict[str, env.Release]) -> PlainKeys:
        """For each release the keys without a rule of their own."""
        special = {"COMPOSE_PROFILES", "DB_HOST", "CELERY_BROKER_URL", "EXPOSE_PLUGIN_DAEMON_PORT", "DB_TYPE"}
        return [
            (tag, sorted(key for key in env.known_keys(one) - special if key.isupper() and not env.is_sensitive(key)))
            for tag, one in releases.items()
        ]


class TestHiding:
    def test_no_secret_in_a_diff(self, release: env.Release) -> None:
        first = render(release, {"DB_PASSWORD": "correct-horse", "SMTP_PASSWORD": "battery-staple"})
        second = render(release, {"SMTP_PASSWORD": "other-staple"})
        hidden = set(first.secrets.values()) | set(second.secrets.values())
        before, after = env.mask_env(first.text + "# OLD_PASSWORD=old-horse\n", second.text, hidden)
        for value in hidden | {"correct-horse", "battery-staple", "other-staple", "old-horse"}:
            assert value not in before + after
        assert "DB_PASSWORD=(hidden)" in before and "DB_PASSWORD=(hidden, changed)" in after
        assert "LOG_LEVEL=INFO" in before and "SMTP_PASSWORD=(hidden, changed)" in after

    def test_same_secrets_make_no_difference(self, release: env.Release) -> None:
        rendered = render(release)
        before, after = env.mask_env(rendered.text, rendered.text, set())
        assert before == after

    def test_yaml(self) -> None:
        tree = {"api": {"environment": {"MY_TOKEN": "sesame-123", "A": "${MY_TOKEN}", "B": "x sesame-123"}}}
        listed = {"api": {"environment": ["MY_TOKEN=sesame-456", "PORT=80"]}}
        shown = env.mask_text(yaml.safe_dump(tree) + yaml.safe_dump(listed), {"sesame-123"})
        assert "sesame" not in shown
        assert "A: ${MY_TOKEN}" in shown and "PORT=80" in shown

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("DB_PASSWORD", "x", True),
            ("S3_ACCESS_KEY", "x", True),
            ("OPENAI_API_KEY", "x", True),
            ("API_SENTRY_DSN", "x", True),
            ("PASSWORD_PEPPER", "x", True),
            ("WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS", "x", True),
            ("CELERY_BROKER_URL", "redis://:pw@redis:6379/1", True),
            ("HTTP_PROXY", "http://user:pw@proxy:3128", True),
            ("HTTP_PROXY", "http://proxy:3128", False),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "60", False),
            ("NGINX_SSL_CERT_KEY_FILENAME", "dify.key", False),
            ("REDIS_KEY_PREFIX", "x", False),
            ("LOG_LEVEL", "INFO", False),
        ],
    )
    def test_what_is_a_secret(self, key: str, value: str, expected: bool) -> None:
        assert env.is_sensitive(key, value) is expected


def test_generated_secrets() -> None:
    for length in (20, 24, 48):
        value = env.generate(length)
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", value) and len(value) == length
        assert re.search("[a-z]", value) and re.search("[A-Z]", value) and re.search("[0-9]", value)
    assert env.generate(20) != env.generate(20)


def test_a_later_release_with_a_public_password_under_a_new_name(releases: dict[str, env.Release]) -> None:
    old = releases["1.16.0"]
    compose = json.loads(json.dumps(old.compose))
    compose["services"]["api"]["environment"]["NEW_STORE_PASSWORD"] = "${NEW_STORE_PASSWORD:-difyai123456}"
    text = old.compose_text + "# ${NEW_STORE_PASSWORD:-difyai123456}\n"
    rendered = render(old._replace(compose=compose, compose_text=text, template=old.template + "OTHER=Dify@123\n"))
    assert SAFE.fullmatch(rendered.env["NEW_STORE_PASSWORD"])
    assert SAFE.fullmatch(rendered.env["OTHER"])
    assert rendered.secrets["OTHER"] == rendered.env["OTHER"]


KEY = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n"
PLUGINS: dict[str, Any] = {
    "marketplace_url": "http://mirror.example.com/marketplace/",
    "plugin_index": "http://mirror.example.com:8080/pypi/simple",
    "plugin_index_args": "--native-tls",
    "plugin_wheels": "/srv/wheels: 3.12",
    "plugin_signatures": False,
    "plugin_public_keys": [KEY],
    "plugin_max_mb": 200,
}


def write_plugins(folder: pathlib.Path, release: env.Release, rendered: env.Rendered) -> pathlib.Path:
    daemon = {"environment": rendered.daemon_env, "volumes": plugins.mounts(PLUGINS)}
    return write(folder, release, rendered, plugin_daemon=daemon)


class TestPlugins:
    """What the plugin daemon really gets, as compose says."""

    def test_nothing_set_changes_nothing(self, release: env.Release) -> None:
        plain = render(release, secrets=secrets_of(release))
        nothing: dict[str, Any] = {
            **dict.fromkeys(PLUGINS, ""),
            "plugin_signatures": True,
            "plugin_public_keys": [],
            "plugin_max_mb": 0,
        }
        same = render(release, secrets=secrets_of(release), **nothing)
        assert (same.text, same.daemon_env) == (plain.text, {})
        public = render(release, secrets=secrets_of(release), marketplace_url="https://marketplace.dify.ai")
        assert public.text == plain.text

    def test_all_of_it_reaches_the_daemon(self, release: env.Release, compose: Any, tmp_path: pathlib.Path) -> None:
        rendered = render(release, secrets=secrets_of(release), **PLUGINS)
        if "plugin_daemon" not in release.compose["services"]:
            assert (rendered.text, rendered.daemon_env) == (render(release, secrets=secrets_of(release)).text, {})
            return
        services = compose.config(write_plugins(tmp_path, release, rendered))["services"]
        daemon = services["plugin_daemon"]
        (name,) = plugins.key_files(PLUGINS)
        assert {key: daemon["environment"].get(key) for key in plugins.DAEMON_KEYS} == {
            "ENFORCE_LANGGENIUS_PLUGIN_SIGNATURES": "false",
            "FORCE_VERIFYING_SIGNATURE": "false",
            "PIP_EXTRA_ARGS": "--native-tls --allow-insecure-host mirror.example.com:8080 --find-links=/wheels",
            "PIP_MIRROR_AUTO_DETECT": "false",
            "PIP_MIRROR_URL": "http://mirror.example.com:8080/pypi/simple",
            "PLUGIN_IGNORE_UV_LOCK": "true",
            "THIRD_PARTY_SIGNATURE_VERIFICATION_ENABLED": "true",
            "THIRD_PARTY_SIGNATURE_VERIFICATION_PUBLIC_KEYS": f"/plugin-keys/{name}",
        }
        assert daemon["environment"]["MAX_PLUGIN_PACKAGE_SIZE"] == str(200 * 1024 * 1024)
        folders = {one["target"]: (one["source"], one.get("read_only")) for one in daemon["volumes"]}
        assert folders["/wheels"] == ("/srv/wheels: 3.12", True)
        assert folders["/plugin-keys"] == (str(tmp_path / "plugin-keys"), True)
        assert "/app/storage" in folders
        for service in ("api", "worker", "plugin_daemon"):
            market = services[service]["environment"]["MARKETPLACE_API_URL"]
            assert market == "http://mirror.example.com/marketplace"
        assert services["api"]["environment"]["PLUGIN_MAX_PACKAGE_SIZE"] == str(200 * 1024 * 1024)
        assert services["nginx"]["environment"]["NGINX_CLIENT_MAX_BODY_SIZE"] == "201M"
        assert "INIT_PASSWORD" in services["api"]["environment"], "the rest is still there"

    def test_the_operator_wins(self, release: env.Release, compose: Any, tmp_path: pathlib.Path) -> None:
        if "plugin_daemon" not in release.compose["services"]:
            return
        wanted = {key: f"of the operator, $1 and {key}" for key in (*plugins.DAEMON_KEYS, "MARKETPLACE_API_URL")}
        wanted |= {"NGINX_CLIENT_MAX_BODY_SIZE": "30M", "PLUGIN_MAX_PACKAGE_SIZE": "31"}
        rendered = render(release, wanted, **PLUGINS)
        services = compose.config(write_plugins(tmp_path, release, rendered))["services"]
        # `config` doubles each $, as its reader would undo it.
        found = {key: value.replace("$$", "$") for key, value in services["plugin_daemon"]["environment"].items()}
        assert {key: found.get(key) for key in plugins.DAEMON_KEYS} == {key: wanted[key] for key in plugins.DAEMON_KEYS}
        market = services["api"]["environment"]["MARKETPLACE_API_URL"].replace("$$", "$")
        assert market == wanted["MARKETPLACE_API_URL"]
        assert services["nginx"]["environment"]["NGINX_CLIENT_MAX_BODY_SIZE"] == "30M"
        assert found["MAX_PLUGIN_PACKAGE_SIZE"] == "31"
        assert set(rendered.unknown_keys) <= {"NGINX_CLIENT_MAX_BODY_SIZE"}
        assert any("NGINX_CLIENT_MAX_BODY_SIZE is 30M in dify_env" in text for text in rendered.warnings)

    def test_a_daemon_that_knows_no_other_keys(self, release: env.Release) -> None:
        text = str(render(release, plugin_public_keys=[KEY]).warnings)
        daemon = str(release.compose["services"].get("plugin_daemon"))
        assert ("plugin_public_keys have no effect" in text) == ("plugin-daemon:0.0.3" in daemon)

    @pytest.mark.parametrize(
        ("wishes", "overrides", "args"),
        [
            ({"plugin_index": "https://mirror/simple"}, {}, None),
            ({"plugin_index": "http://me:secret@mirror/simple"}, {}, "--allow-insecure-host mirror"),
            ({"plugin_index": "http://[fd00::1]:80/simple"}, {}, "--allow-insecure-host [fd00::1]:80"),
            (
                {"plugin_index": "http://mirror/simple", "plugin_index_args": "--allow-insecure-host  other"},
                {},
                "--allow-insecure-host other",
            ),
            ({"plugin_wheels": "/w"}, {}, "--no-index --find-links=/wheels"),
            ({"plugin_wheels": "/w"}, {"PIP_MIRROR_URL": "https://mirror/simple"}, "--find-links=/wheels"),
            ({}, {"PIP_MIRROR_URL": "http://mirror/simple"}, "--allow-insecure-host mirror"),
            ({"plugin_index": "http://a/simple"}, {"PIP_MIRROR_URL": "http://b/simple"}, "--allow-insecure-host b"),
        ],
    )
    def test_arguments_of_uv(self, wishes: dict[str, Any], overrides: dict[str, str], args: str | None) -> None:
        assert plugins.environment(wishes, overrides).get("PIP_EXTRA_ARGS") == args

    @pytest.mark.parametrize(
        ("wishes", "words"),
        [
            ({"plugin_index": "mirror/simple"}, "plugin_index must begin with http"),
            ({"marketplace_url": "ftp://mirror"}, "marketplace_url must begin with http"),
            ({"plugin_public_keys": [KEY, "ssh-rsa AAAA"]}, "Number 2 of plugin_public_keys is no public key"),
            ({"plugin_public_keys": [KEY.replace("END PUBLIC", "END")]}, "is no public key in PEM form"),
            ({"plugin_public_keys": [KEY.replace("PUBLIC", "PRIVATE")]}, "is a private key"),
        ],
    )
    def test_what_cannot_work_is_refused(self, wishes: dict[str, Any], words: str) -> None:
        with pytest.raises(plugins.PluginSettingsError, match=words):
            plugins.environment(wishes, {})

    @pytest.mark.parametrize(
        ("current", "megabytes", "expected"),
        [
            ("15M", 10, "15M"),
            ("15M", 15, "16M"),
            ("100m", 99, "100m"),
            ("0", 500, "0"),
            ("1G", 1023, "1G"),
            ("1G", 1024, "1025M"),
            ("102400k", 50, "102400k"),
            ("much", 50, "51M"),
        ],
    )
    def test_what_nginx_lets_through(self, current: str, megabytes: int, expected: str) -> None:
        assert plugins.body_size(current, megabytes) == expected

    @settings(max_examples=60)
    @given(st.text("abc/:= -$", max_size=30), st.sampled_from(["", "http://m/s", "https://m/s"]), st.booleans())
    def test_whatever_is_asked_becomes_words_for_uv(self, args: str, index: str, wheels: bool) -> None:
        wishes = {"plugin_index": index, "plugin_index_args": args, "plugin_wheels": "/w" if wheels else None}
        found = plugins.environment(wishes, {})
        words = found.get("PIP_EXTRA_ARGS", "").split(" ") if "PIP_EXTRA_ARGS" in found else []
        assert "" not in words
        assert words[: len(args.split())] == args.split()
        assert ("--no-index" in words) == (wheels and not index)
        assert ("--find-links=/wheels" in words) == wheels
        assert found.get("PIP_MIRROR_URL", "") == index


class TestOwner:
    def test_a_password_to_type_that_stays_out_of_every_file(self, release: env.Release) -> None:
        first = render(release)
        password = first.secrets["ADMIN_PASSWORD"]
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]{23}", password)
        assert "ADMIN_PASSWORD=" not in re.sub(r"INITIAL_ADMIN_PASSWORD", "", first.text)
        assert password not in first.text
        assert render(release, secrets=first.secrets).secrets == first.secrets
        chosen = render(release, admin_password="chosen-1").secrets
        assert chosen["ADMIN_PASSWORD"] == "chosen-1"
        assert render(release, secrets=chosen, admin_password="").secrets == chosen
        # Whether another one is right is not known here, and this may be the only copy of the one that is.
        assert render(release, secrets=chosen, admin_password="chosen-2").secrets == chosen

    def test_one_that_is_new_is_marked_until_it_opened_dify(self, releases: dict[str, env.Release]) -> None:
        release = releases["1.12.1"]
        for password in ("", "chosen-1"):
            first = render(release, admin_password=password).secrets
            assert first["ADMIN_PASSWORD_UNTRIED"] == first["ADMIN_PASSWORD"]
        opened = {name: value for name, value in first.items() if name != "ADMIN_PASSWORD_UNTRIED"}
        assert render(release, secrets=opened).secrets == opened

    @pytest.mark.parametrize("password", ["short1", "onlyletters", "12345678"])
    def test_one_that_dify_would_refuse(self, releases: dict[str, env.Release], password: str) -> None:
        with pytest.raises(env.EnvError, match="8 characters or more, with letters and digits") as caught:
            render(releases["1.12.1"], admin_password=password)
        assert password not in str(caught.value)

    def test_it_is_no_key_of_dify(self) -> None:
        with pytest.raises(env.EnvError, match="Set dify_admin_password") as caught:
            env.check_overrides({"ADMIN_PASSWORD": "a-secret-1"})
        assert "a-secret-1" not in str(caught.value)
