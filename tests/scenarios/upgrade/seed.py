"""What two workspaces leave in a Dify over its life, made by the oldest release; and that all of it is still there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import time
from typing import Any

from node import HOME, MACHINE, ROOT, on_node, secret, serving, sql
from people import PLUGINS_SINCE, Person, Program, key

MODEL = "deepseek-r1:1.5b"
ANSWER = "This node is ready"
OLLAMA = "http://host.docker.internal:11434"
SECRET = "sk-of-a-proxy-0123456789-ab"
# Dify shows the first six and the last two letters of a secret that it can decrypt, and asterisks where it cannot.
MASK = re.compile(rf"{SECRET[:6]}\*+{SECRET[-2:]}")
UPLOAD = b"what a reader has sent\n" * 400
TEXT = "The node stands in the cellar.\n\nIts key hangs beside the door.\n\nNobody has seen it since."
FLASK = "docker exec dify-api-1 flask"
FILE = ROOT / "build" / "world" / f"seed-{MACHINE.name}.json"


@dataclasses.dataclass
class Seed:
    """Names and keys that were given out and have to go on working."""

    owner: dict[str, str]
    second: dict[str, str]
    owner_key: str
    second_key: str
    dataset_key: str
    dataset: str
    conversation: str
    upload: str
    with_secret: bool = False

    def save(self) -> Seed:
        FILE.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        return self

    def people(self) -> list[Person]:
        return [Person(**self.owner).sign_in(), Person(**self.second).sign_in()]


def load(file: pathlib.Path = FILE) -> Seed:
    return Seed(**json.loads(file.read_text(encoding="utf-8")))


def sow(email: str = "owner@example.com") -> Seed:
    owner = Person(email, secret("ADMIN_PASSWORD")).sign_in()
    second = _second_workspace()
    keys = owner.add_app("the owner's chat", MODEL), second.add_app("the other workspace's chat", MODEL)
    program = Program(keys[0])
    conversation = str(program.chat("What is kept?")["conversation"])
    program.chat("And then?", conversation)
    assert ANSWER in Program(keys[1]).chat("Hello from the other side")["text"]
    files = {"file": ("notes.txt", UPLOAD)}
    upload = str(program.ask("POST", "files/upload", files=files, data={"user": "reader"}).json()["id"])
    dataset_key = str(owner.ask("POST", "datasets/api-keys")["token"])
    seed = Seed(
        {"email": owner.email, "password": owner.password},
        {"email": second.email, "password": second.password},
        *keys,
        dataset_key,
        _knowledge(Program(dataset_key)),
        conversation,
        upload,
    )
    _rows()
    return seed.save()


def _second_workspace() -> Person:
    """With an account of its own, as an administrator makes it on the command line."""
    email = "second@example.com"
    said = on_node(f"{FLASK} create-tenant --email {email} --name Second --language en-US")
    found = re.search(r"^Password: (\S+)$", said, re.MULTILINE)
    assert found, said
    person = Person(email, found[1]).sign_in()
    credentials = {
        "base_url": OLLAMA,
        "mode": "chat",
        "context_size": "4096",
        "max_tokens": "4096",
        "vision_support": "false",
        "function_call_support": "false",
    }
    body = {"model": MODEL, "model_type": "llm", "credentials": credentials}
    person.ask("POST", f"workspaces/current/model-providers/{person.provider}/models", json=body)
    return person


def _knowledge(program: Program) -> str:
    body: dict[str, Any] = {"name": "about the node", "indexing_technique": "high_quality"}
    dataset = program.ask("POST", "datasets", json=body).json()["id"]
    text = {"name": "cellar.txt", "text": TEXT, "indexing_technique": "high_quality"}
    more = {"process_rule": {"mode": "automatic"}}
    made = program.ask("POST", f"datasets/{dataset}/document/create_by_text", json={**text, **more}).json()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = f"datasets/{dataset}/documents/{made['batch']}/indexing-status"
        (status,) = program.ask("GET", path).json()["data"]
        if status["indexing_status"] in ("completed", "error"):
            assert status["indexing_status"] == "completed", status
            return str(dataset)
        time.sleep(0.5)
    raise AssertionError(f"the document was not embedded in time: {status}")


def _rows() -> None:
    """What nothing here makes by itself: tables that migrations go through."""
    sql(
        """
        INSERT INTO tags (tenant_id, type, name, created_by)
          SELECT tenant_id, 'app', 'kept', account_id FROM tenant_account_joins;
        INSERT INTO installed_apps (tenant_id, app_id, app_owner_tenant_id) SELECT tenant_id, id, tenant_id FROM apps;
        INSERT INTO message_annotations (app_id, conversation_id, message_id, question, content, account_id)
          SELECT m.app_id, m.conversation_id, m.id, m.query, 'a better answer', a.created_by
          FROM messages m JOIN apps a ON a.id = m.app_id;
        INSERT INTO message_feedbacks (app_id, message_id, rating, content) SELECT app_id, id, 'like', '' FROM messages;
        INSERT INTO workflows (tenant_id, app_id, type, version, graph, features, created_by)
          SELECT tenant_id, id, 'workflow', 'draft', '{"nodes": []}', '{}', created_by FROM apps;
        INSERT INTO workflow_runs (tenant_id, app_id, workflow_id, sequence_number, status, inputs, outputs)
          SELECT w.tenant_id, w.app_id, w.id, n, 'succeeded', '{}', '{"text": "done"}'
          FROM workflows w, generate_series(1, 500) n;
        INSERT INTO workflow_node_executions (tenant_id, app_id, workflow_id, node_id, workflow_run_id, status)
          SELECT tenant_id, app_id, workflow_id, 'llm', id, 'succeeded' FROM workflow_runs;
        INSERT INTO workflow_app_logs (tenant_id, app_id, workflow_id, workflow_run_id, created_by)
          SELECT tenant_id, app_id, workflow_id, id, workflow_id FROM workflow_runs;
        INSERT INTO embeddings (model_name, hash, embedding, provider_name)
          SELECT 'all-minilm', md5(n::text), 'x', 'ollama' FROM generate_series(1, 50) n;
        """
    )


def add_secret(seed: Seed) -> Seed:
    """A key in the credentials of a model: the plugin's form has a field for it, the built-in provider had none."""
    owner, _second = seed.people()
    body = {"model": MODEL, "model_type": "llm"}
    path = f"workspaces/current/model-providers/{owner.provider}/models"
    given = {**owner.credentials(MODEL), "api_key": SECRET}
    if key(owner.release) < (1, 8, 0):
        owner.ask("POST", path, json={**body, "credentials": given})
    else:
        found = owner.ask("GET", f"{path}/credentials", params=body)
        named = {"credential_id": found["current_credential_id"], "name": found["current_credential_name"]}
        owner.ask("PUT", f"{path}/credentials", json={**body, **named, "credentials": given})
    return dataclasses.replace(seed, with_secret=True).save()


def grown(seed: Seed, release: str) -> None:
    """Everybody signs in, old keys chat, old conversations go on, files, knowledge and secrets are what they were."""
    assert serving() == release
    for person, app in zip(seed.people(), ("the owner's chat", "the other workspace's chat"), strict=True):
        assert app in person.apps()
        assert person.models().get(MODEL) == "llm", person.email
    owner = seed.people()[0]
    if seed.with_secret:
        assert MASK.fullmatch(str(owner.credentials(MODEL).get("api_key"))), "the secret cannot be decrypted any more"
    program = Program(seed.owner_key)
    before = program.questions(seed.conversation)
    assert {"What is kept?", "And then?"} <= set(before)
    assert ANSWER in program.chat(f"Still there in {release}?", seed.conversation)["text"]
    assert ANSWER in Program(seed.second_key).chat()["text"]
    kept = program.ask("GET", f"files/{seed.upload}/preview").content
    assert hashlib.sha256(kept).digest() == hashlib.sha256(UPLOAD).digest()
    _knows(seed, release)


def _knows(seed: Seed, release: str) -> None:
    states = sql(f"SELECT status FROM document_segments WHERE dataset_id = '{seed.dataset}'")
    assert states == [["completed"]] * 3, states
    if key(release) >= PLUGINS_SINCE:
        body = {"query": "Where is the key?", "retrieval_model": {"search_method": "semantic_search", "top_k": 2}}
        answer = Program(seed.dataset_key).ask("POST", f"datasets/{seed.dataset}/retrieve", json=body).json()
        found = [one["segment"]["content"] for one in answer["records"]]
        assert any("key hangs beside the door" in text for text in found), answer


def storage() -> dict[str, str]:
    """Every file of Dify's own storage with its digest, private keys among them; without what the tests switch, and
    without the empty note of releases from 1.11.0 on that they have given all of it to their user."""
    names = "! -name '.standin*' ! -name .init_permissions"
    script = f"cd {HOME}/volumes/app/storage && find . -type f {names} -exec sha256sum {{}} +"
    return {line.split()[1]: line.split()[0] for line in on_node(script).splitlines()}
