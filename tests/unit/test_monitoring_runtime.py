"""The monitoring runtime: each call of a model is one event, whatever becomes of it, and no plugin can disturb it."""

from __future__ import annotations

import contextvars
import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.stack.tests.unit.monitoring import (
    ASK,
    GENERATIONS,
    HOOKS,
    MODEL_BASE,
    MONITORING,
    RECORDER,
    ROOT,
    WITNESS,
    write,
    write_dify,
    write_module,
    write_plugin,
)

COST_LOG = ROOT / "examples" / "monitoring" / "cost-log"
sys.path.insert(0, str(MONITORING))

from llmops_monitoring import __main__ as check  # noqa: E402 - found only on the path set above
from llmops_monitoring import counters, describe, hook, manifest, plugins, table  # noqa: E402 - as above


class Dify:
    """One generation of Dify in this process, with one recording plugin."""

    def __init__(self, root: pathlib.Path, generation: str) -> None:
        self.generation = generation
        write_dify(root, generation)
        import player  # the file written above

        self.player = player

    def client(self) -> Any:
        module, cls, _more = GENERATIONS[self.generation]
        return getattr(_import(module), cls)()

    @property
    def recorder(self) -> Any:
        return sys.modules[f"{manifest.PACKAGE}recorder"]

    @property
    def seen(self) -> list[str]:
        return [name for name, _event in self.recorder.seen]

    @property
    def event(self) -> Any:
        events = {id(event): event for _name, event in self.recorder.seen}
        assert len(events) == 1
        return next(iter(events.values()))

    def stream(self, *texts: str) -> None:
        """A whole answer: the texts, then the chunk with usage and the reason of the end."""
        chunks = [self.player.chunk(text) for text in texts]
        self.player.answer[:] = [*chunks, self.player.chunk("", self.player.usage(7, 3), "stop")]


def _import(name: str) -> Any:
    return __import__(name, fromlist=["_"])


@pytest.fixture
def start(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Dify]]:
    """Dify of a generation, freshly imported under the hook."""
    api = tmp_path / "api"
    api.mkdir()
    monkeypatch.syspath_prepend(str(api))
    monkeypatch.setenv("LLMOPS_MONITORING_PLUGINS", str(tmp_path / "plugins"))
    monkeypatch.setattr(plugins, "_state", plugins._State())
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    write_plugin(tmp_path / "plugins" / "recorder")
    counters.reset()
    hook.install()

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] in ("core", "player")]:
            del sys.modules[name]

    forget()
    yield lambda generation="1.16": Dify(api, generation)
    plugins.close()
    forget()


def ask(client: Any, **changes: Any) -> Generator[Any, None, Any]:
    return client.invoke_llm(**{**ASK, "prompt_messages": [], **changes})


def texts(stream: Any) -> list[str]:
    return [chunk.delta.message.content for chunk in stream]


class TestTheTable:
    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_a_call_is_seen_in_each_generation(self, start: Callable[..., Dify], generation: str) -> None:
        dify = start(generation)
        client = dify.client()
        dify.stream("Hel", "lo")
        assert texts(ask(client)) == ["Hel", "lo", ""]
        assert dify.seen == ["before_invoke", "on_first_chunk", "after_invoke"]

    def test_the_older_base_class_is_wrapped_only_without_a_plugin_daemon(self, start: Callable[..., Dify]) -> None:
        start("1.3.1")
        base = _import(f"{MODEL_BASE}.large_language_model").LargeLanguageModel
        assert not hasattr(base.invoke, hook.MARK)

    def test_0_15_blocking_and_streaming(self, start: Callable[..., Dify]) -> None:
        dify = start("0.15")
        model = _import("core.model_runtime.model_providers.ollama.llm.llm").Ollama()
        dify.stream("Hel", "lo")
        stream = model.invoke(model="m", credentials={}, prompt_messages=[], stream=True, user="u-1")
        assert texts(stream) == ["Hel", "lo", ""]
        assert (dify.event.provider, dify.event.user, dify.event.outcome) == ("ollama", "u-1", "ok")
        dify.recorder.seen.clear()
        message = dify.player.Thing(content="Hello")
        dify.player.answer[:] = [dify.player.Thing(model="m", message=message, usage=dify.player.usage(5, 2))]
        model.invoke(model="m", credentials={}, prompt_messages=[], stream=False)
        assert dify.seen == ["before_invoke", "after_invoke"]
        assert dify.event.usage["total_tokens"] == 7

    def test_0_15_stream_that_nobody_reads(self, start: Callable[..., Dify]) -> None:
        """Its request is sent by the call itself, so it is a call."""
        dify = start("0.15")
        model = _import("core.model_runtime.model_providers.ollama.llm.llm").Ollama()
        dify.stream("x")
        stream = model.invoke("m", {}, [])
        del stream
        gc.collect()
        assert dify.event.outcome == "cancelled"

    def test_a_known_module_without_its_function_is_said(
        self, start: Callable[..., Dify], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        start("0.15")
        write_module(tmp_path / "api", "core.plugin.impl.model", "class PluginModelClient:\n    pass\n")
        _import("core.plugin.impl.model")
        assert counters.counters()["internal.no_hook_point"] == 1
        assert "has no PluginModelClient.invoke_llm" in capfd.readouterr().err

    def test_a_function_is_wrapped_once_and_stays_itself(self, start: Callable[..., Dify]) -> None:
        client = type(start().client())
        wrapped = client.invoke_llm
        hook.patch(sys.modules[client.__module__])
        assert client.invoke_llm is wrapped
        assert wrapped.__name__ == "invoke_llm"
        module = sys.modules[client.__module__]
        assert not isinstance(module.__loader__, hook.PatchingLoader)

    def test_every_generation_has_exactly_one_place_of_chat(self) -> None:
        chat = [target for target in table.TARGETS if target.required]
        assert [target.generation for target in chat] == ["0.15", "1.0", "1.3.1"]


class TestWhatIsTold:
    def test_a_whole_stream(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("Hel", "lo")
        long = "x" * 1000
        parameters = {"temperature": 0.7, "num_predict": 9, "format": "json", "schema": long, "nested": {"a": 1}}
        list(ask(client, model_parameters=parameters, stop=["END"], app_id="a-1", prompt_messages=["one", "two"]))
        event = dify.event
        assert (event.kind, event.provider, event.model) == ("chat", "ollama", "deepseek-r1:1.5b")
        assert (event.app_id, event.user, event.tenant_id) == ("a-1", "u-1", "t-1")
        assert event.parameters == {"temperature": 0.7, "num_predict": 9, "format": "json", "stop": ["END"]}
        assert (event.stream, event.chunks, event.inputs) == (True, 3, 2)
        assert event.usage == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        assert (event.finish_reason, event.response_model, event.outcome) == ("stop", "m", "ok")
        assert (event.server_address, event.server_port) == ("ollama.example.com", 11434)
        assert event.started <= event.first_chunk <= event.last_chunk <= event.ended
        assert abs(event.wall_ns(event.ended) - time.time_ns()) < 5e9
        assert event.content is None

    def test_nothing_of_the_credentials_or_the_prompt(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("answer of the model")
        list(ask(client, prompt_messages=[dify.player.Thing(role="user", content="prompt of a person")]))
        told = repr({name: getattr(dify.event, name) for name in dify.event.__slots__ if name != "context"})
        for hidden in ("secret", "prompt of a person", "answer of the model"):
            assert hidden not in told
        assert dify.event._prompt is None

    def test_content_for_who_asks_and_cut(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.recorder.keep = 6
        dify.stream("Hel", "lo ", "you")
        part = dify.player.Thing
        prompt = [
            part(role=part(value="system"), content="be"),
            part(role=part(value="user"), content=[part(type="text", data="kind"), part(type="image", data="...")]),
        ]
        list(ask(client, prompt_messages=prompt))
        assert dify.event.content.messages == [("system", "be"), ("user", "kind")]
        assert dify.event.content.answer == "Hello "

    def test_embeddings_and_rerank(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        usage = dify.player.Thing(tokens=4, total_tokens=4, total_price=0.5, currency="USD")
        dify.player.answer[:] = [dify.player.Thing(model="e", embeddings=[[0.1]], usage=usage)]
        client.invoke_text_embedding(**ASK, texts=["a", "b"], input_type=dify.player.Thing(value="query"))
        event = dify.event
        assert (event.kind, event.inputs, event.stream) == ("embeddings", 2, False)
        assert event.parameters == {"input_type": "query"}
        assert event.usage == {
            "prompt_tokens": 4,
            "completion_tokens": 0,
            "total_tokens": 4,
            "total_price": 0.5,
            "currency": "USD",
        }
        dify.recorder.seen.clear()
        dify.player.answer[:] = [dify.player.Thing(model="r", docs=[])]
        client.invoke_rerank(**ASK, query="q", docs=["a"], top_n=3)
        assert (dify.event.kind, dify.event.usage, dify.event.parameters["top_n"]) == ("rerank", None, 3)
        dify.recorder.seen.clear()
        dify.player.answer[:] = []
        with pytest.raises(ValueError, match="nothing came"):
            client.invoke_rerank(**ASK, query="q", docs=["a"])
        assert dify.seen == ["before_invoke", "on_error"]

    def test_positional_arguments_are_understood(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("x")
        list(client.invoke_llm(*ASK.values(), [], None, None, None, False))
        assert (dify.event.model, dify.event.stream) == ("deepseek-r1:1.5b", False)


class TestHowAStreamEnds:
    def test_error_in_the_middle(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        trouble = ValueError("the prompt said: hello")
        dify.player.answer[:] = [dify.player.chunk("a"), trouble]
        with pytest.raises(ValueError, match="the prompt said") as caught:
            list(ask(client))
        assert caught.value is trouble
        assert dify.seen == ["before_invoke", "on_first_chunk", "on_error"]
        assert (dify.event.outcome, dify.event.error) == ("error", ("ValueError", "", ""))

    def test_error_message_for_who_keeps_content(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.recorder.keep = 100
        dify.player.answer[:] = [ValueError("no such model" + "!" * 1000)]
        with pytest.raises(ValueError, match="no such model"):
            list(ask(client))
        assert dify.event.error.message.startswith("no such model")
        assert len(dify.event.error.message) == describe.MESSAGE

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ('{"error_type": "InvokeConnectionError", "message": "x", "args": {}}', "InvokeConnectionError"),
            ('plugin: {"error_type": "A b", "message": "x"}', ""),
            ('{"error_type": ', ""),
            ("refused", ""),
        ],
    )
    def test_the_cause_behind_a_plugin_error(self, text: str, cause: str) -> None:
        trouble = type("PluginInvokeError", (ValueError,), {"description": text})("")
        assert describe.error_of(trouble, content=False) == ("PluginInvokeError", "", cause)

    def test_reader_goes_away(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("a", "b", "c")
        stream = ask(client)
        next(stream)
        stream.close()
        assert dify.seen == ["before_invoke", "on_first_chunk", "after_invoke"]
        assert (dify.event.outcome, dify.event.usage, dify.player.closed) == ("cancelled", None, [True])

    def test_reader_goes_away_with_the_last_chunk(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream()
        stream = ask(client)
        next(stream)
        stream.close()
        assert (dify.event.outcome, dify.event.ended) == ("ok", dify.event.last_chunk)

    def test_blocking_call_of_1_7_that_takes_one_chunk(self, start: Callable[..., Dify]) -> None:
        dify = start("1.3.1")
        client = dify.client()
        dify.player.answer[:] = [dify.player.chunk("a"), dify.player.chunk("b")]
        for _chunk in ask(client, stream=False):
            break
        gc.collect()
        assert dify.event.outcome == "ok"

    def test_never_read(self, start: Callable[..., Dify]) -> None:
        """Nothing was asked of any model."""
        dify = start()
        client = dify.client()
        dify.stream("a")
        stream = ask(client)
        stream.close()
        list(stream)
        assert dify.player.asked == []
        assert plugins._state.started is False

    def test_nothing_came(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.player.answer[:] = []
        assert list(ask(client)) == []
        assert (dify.event.outcome, dify.event.error.type) == ("error", "EmptyStream")

    @pytest.mark.parametrize(("name", "outcome"), [("GreenletExit", "cancelled"), ("Timeout", "error")])
    def test_what_gevent_throws(self, start: Callable[..., Dify], name: str, outcome: str) -> None:
        dify = start()
        client = dify.client()
        thrown = type(name, (BaseException,), {})
        dify.player.answer[:] = [dify.player.chunk("a"), thrown()]
        with pytest.raises(thrown):
            list(ask(client))
        assert dify.event.outcome == outcome

    @pytest.mark.parametrize("dealt", ["goes on", "ends", "fails otherwise", "lets it pass"])
    def test_what_the_reader_throws_in_is_the_sources(
        self, start: Callable[..., Dify], dealt: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dify = start()
        client = dify.client()
        chunk, thrown = dify.player.chunk, KeyError("thrown in")
        caught: list[BaseException] = []

        def play() -> Iterator[Any]:
            try:
                yield chunk("a")
            except KeyError as exc:
                caught.append(exc)
                if dealt == "fails otherwise":
                    raise ValueError("source") from exc
                if dealt == "lets it pass":
                    raise
            if dealt == "goes on":
                yield chunk("b")
                yield chunk("c", dify.player.usage(7, 3), "stop")

        monkeypatch.setattr(dify.player, "play", play)
        stream = ask(client)
        next(stream)
        if dealt == "goes on":
            assert stream.throw(thrown).delta.message.content == "b"
            assert texts(stream) == ["c"]
        else:
            ends = {"ends": StopIteration, "fails otherwise": ValueError, "lets it pass": KeyError}
            with pytest.raises(ends[dealt]):
                stream.throw(thrown)
        assert caught == [thrown]
        outcomes = {"goes on": "ok", "ends": "ok", "fails otherwise": "error", "lets it pass": "cancelled"}
        assert dify.event.outcome == outcomes[dealt]
        assert dify.seen.count("on_first_chunk") == 1

    def test_a_wrong_argument_is_refused_by_the_call(self, start: Callable[..., Dify]) -> None:
        client = start().client()
        with pytest.raises(TypeError):
            client.invoke_llm(nonsense=1)

    def test_a_chunk_is_read_before_the_next_is_made(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("a", "b")
        stream = ask(client)
        next(stream)
        assert len(dify.player.inside) == 1
        assert dify.seen == ["before_invoke"]  # the reader has the chunk before any hook hears of it
        next(stream)
        assert dify.seen == ["before_invoke", "on_first_chunk"]
        stream.close()


class TestContexts:
    def test_what_a_plugin_sets_is_seen_by_the_call_and_by_nobody_else(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        current: contextvars.ContextVar[str] = dify.player.current
        dify.recorder.at_before = lambda event: current.set(f"span of {event.model}")
        dify.stream("a", "b")
        between = []
        for _chunk in ask(client):
            between.append(current.get())
        assert set(between) == {"nobody"}
        assert set(dify.player.inside) == {"span of deepseek-r1:1.5b"}

    def test_the_context_is_that_of_the_first_next(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("a")
        stream = ask(client)
        token = dify.player.current.set("guard")
        list(stream)
        dify.player.current.reset(token)
        assert set(dify.player.inside) == {"guard"}

    def test_interleaved_streams_keep_apart(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        current = dify.player.current
        dify.recorder.at_before = lambda event: current.set(event.model)
        dify.stream("a", "b")
        streams = [ask(client, model=f"m{number}") for number in range(3)]
        for _chunks in itertools.zip_longest(*streams):
            pass
        assert dify.player.inside[:9] == ["m0", "m1", "m2"] * 3
        assert counters.counters()["ok"] == 3

    def test_closed_by_another_thread(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.stream("a", "b")
        stream = ask(client)
        next(stream)
        thread = threading.Thread(target=stream.close)
        thread.start()
        thread.join()
        assert dify.event.outcome == "cancelled"


class TestPlugins:
    @pytest.mark.parametrize("name", HOOKS.values())
    def test_a_hook_that_raises_is_counted_and_said_once(
        self, start: Callable[..., Dify], tmp_path: pathlib.Path, name: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bad = RECORDER.replace(f"def {name}(event):", f"def {name}(event):\n    raise KeyError('a prompt')")
        write_plugin(tmp_path / "plugins" / "bad", bad)
        dify = start()
        client = dify.client()
        for _time in range(3):
            dify.stream("a")
            assert texts(ask(client)) == ["a", ""]
        dify.player.answer[:] = [ValueError("mine")]
        with pytest.raises(ValueError, match="mine"):
            list(ask(client))
        hook_name = next(key for key, value in HOOKS.items() if value == name)
        assert counters.counters()[f"hook_errors.bad.{hook_name}"] >= 1
        said = capfd.readouterr().err
        assert said.count("hook_errors.bad") == 1
        assert "KeyError at main.py:" in said
        assert "a prompt" not in said
        assert dify.seen.count("before_invoke") == 4  # the other plugin misses nothing

    def test_a_slow_hook_is_counted(self, start: Callable[..., Dify]) -> None:
        dify = start()
        client = dify.client()
        dify.recorder.at_before = lambda _event: time.sleep(plugins.SLOW * 2)
        dify.stream("a")
        list(ask(client))
        assert counters.counters()["slow_hooks.recorder.before_invoke"] == 1

    def test_life(self, start: Callable[..., Dify], capfd: pytest.CaptureFixture[str]) -> None:
        dify = start()
        client = dify.client()
        assert (dify.recorder.ran, dify.recorder.closed) == ([], [])
        for _time in range(2):
            dify.stream("a")
            list(ask(client))
        assert (dify.recorder.ran, dify.recorder.closed) == ([True], [])
        plugins.close()
        plugins.close()
        assert dify.recorder.closed == [True]
        capfd.readouterr()
        for _time in range(2):
            dify.stream("late")
            assert texts(ask(client)) == ["late", ""]
        assert counters.counters()["unseen"] == 2
        assert capfd.readouterr().err.count("calls after the plugins were closed are not seen") == 1

    def test_a_child_of_celery_leaves_without_atexit(
        self, start: Callable[..., Dify], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connected: list[Any] = []
        signal = types.SimpleNamespace(connect=lambda function, weak: connected.append((function, weak)))
        signals = types.SimpleNamespace(worker_process_shutdown=signal)
        monkeypatch.setitem(sys.modules, "celery.signals", signals)  # all that is used of it
        monkeypatch.setattr(plugins, "_exit_set", False)
        dify = start()
        client = dify.client()
        dify.stream("a")
        list(ask(client))
        [(function, weak)] = connected
        function(sender=None, pid=1, exitcode=0)
        assert (weak, dify.recorder.closed) == (False, [True])

    def test_a_plugin_that_starts_for_ever_holds_up_one_call(
        self, start: Callable[..., Dify], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plugins, "START_WAIT", 0.01)
        slow = RECORDER.replace("def run():", "import threading\ngo = threading.Event()\n\n\ndef run():\n    go.wait()")
        write_plugin(tmp_path / "plugins" / "slow", slow)
        dify = start()
        client = dify.client()
        dify.stream("a")
        first = threading.Thread(target=lambda: list(ask(client)))
        first.start()
        while not plugins._state.lock.locked():
            time.sleep(0.001)
        assert texts(ask(client)) == ["a", ""]
        assert counters.counters()["unseen"] == 1
        sys.modules[f"{manifest.PACKAGE}slow"].go.set()
        first.join()

    def test_without_plugins_a_call_is_let_through(self, start: Callable[..., Dify], tmp_path: pathlib.Path) -> None:
        (tmp_path / "plugins" / "recorder" / "plugin.json").unlink()
        dify = start()
        client = dify.client()
        dify.stream("a")
        assert texts(ask(client)) == ["a", ""]
        assert "calls" not in counters.counters()

    def test_a_broken_plugin_is_left_out_and_the_others_serve(
        self, start: Callable[..., Dify], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        write_plugin(tmp_path / "plugins" / "broken", "import nothing_of_this_name\n")
        write_plugin(tmp_path / "plugins" / "twin", name="recorder")
        write_plugin(tmp_path / "plugins" / "needy", dependencies={"no-such-distribution": ">=1"})
        dify = start()
        client = dify.client()
        dify.stream("a")
        list(ask(client))
        assert dify.seen == ["before_invoke", "on_first_chunk", "after_invoke"]
        found = counters.counters()
        assert (
            found["plugin_errors.broken.load"] == found["plugins_refused.twin"] == found["plugins_refused.needy"] == 1
        )
        assert "needs no-such-distribution >=1, which is not installed here" in capfd.readouterr().err

    def test_main_imports_the_files_beside_it(self, tmp_path: pathlib.Path) -> None:
        folder = write_plugin(tmp_path / "two-files", "from .names import NAME\n" + RECORDER)
        write(folder / "names.py", "NAME = 1\n")
        plugin = manifest.Plugin(folder).load()
        assert sorted(plugin.hooks) == sorted(HOOKS)


class TestManifest:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name": None}, "name is missing"),
            ({"hook": {}}, "hook is unknown"),
            ({"version": 1}, "version must be a string"),
            ({"version": "1"}, "version must be like 1.2.3"),
            ({"name": "Mine!"}, "name must be lower-case"),
            ({"main": "../main.py"}, "main must be a Python file in the plugin's folder"),
            ({"main": "other.py"}, "main must be a Python file in the plugin's folder"),
            ({"dependencies": {"x": "~=1"}}, "dependencies.x must be like"),
            ({"hooks": {}}, "hooks must name at least one of"),
            ({"hooks": {"before": "f"}}, "hooks.before is unknown"),
            ({"hooks": {"on_error": "f()"}}, "hooks.on_error must be the name of a function"),
            ({"hooks": {"on_error": "absent"}}, "has no function absent"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: pathlib.Path, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(manifest.Refused, match=said.replace("(", r"\(")):
            manifest.Plugin(write_plugin(tmp_path / "p", **changes)).load()

    def test_not_json(self, tmp_path: pathlib.Path) -> None:
        write(tmp_path / "p" / "plugin.json", "{")
        with pytest.raises(manifest.Refused, match="cannot be read"):
            manifest.read(tmp_path / "p")

    @pytest.mark.parametrize(
        ("wanted", "met"), [("*", True), (">=1", True), (">=1,<2", False), ("!=0.1", True), ("<1.0", False)]
    )
    def test_dependencies_are_compared_by_number(self, tmp_path: pathlib.Path, wanted: str, met: bool) -> None:
        """Of pytest, which is past version 2 wherever this runs."""
        plugin = manifest.Plugin(write_plugin(tmp_path / "p", dependencies={"pytest": wanted}))
        if met:
            plugin.load()
        else:
            with pytest.raises(manifest.Refused, match="is installed here"):
                plugin.load()


class TestProcess:
    """Real interpreters that meet the runtime as Dify's do: through PYTHONPATH alone."""

    PRELUDE = f"""
import os, sys, player
from core.plugin.impl.model import PluginModelClient
player.answer[:] = [player.chunk("a"), player.chunk("", player.usage(7, 3), "stop")]
client = PluginModelClient()
def ask(model):
    return client.invoke_llm(**{{**{ASK!r}, "prompt_messages": [], "model": model}})
"""

    def python(
        self, tmp_path: pathlib.Path, code: str, plugin: pathlib.Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        api = write_dify(tmp_path / "api", "1.16")
        if plugin is None:
            write_plugin(tmp_path / "plugins" / "witness", WITNESS, hooks={"after_invoke": "tell"})
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{MONITORING}{os.pathsep}{api}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LLMOPS_MONITORING_PLUGINS": str(plugin.parent if plugin else tmp_path / "plugins"),
            "WITNESS": str(tmp_path / "witness"),
            **env,
        }
        command = [sys.executable, "-c", textwrap.dedent(code)]
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60, check=False)

    def told(self, tmp_path: pathlib.Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "witness").read_text().splitlines()]

    def test_the_start_of_python_imports_almost_nothing(self, tmp_path: pathlib.Path) -> None:
        code = "import sys; print(sorted({'threading', 'socket', 'inspect', 'json', 'player'} & sys.modules.keys()))"
        done = self.python(tmp_path, code)
        assert (done.stdout.strip(), done.stderr) == ("[]", "")

    def test_one_call_is_told_and_the_plugin_closed_at_the_end(self, tmp_path: pathlib.Path) -> None:
        done = self.python(tmp_path, self.PRELUDE + "list(ask('m'))")
        assert (done.returncode, done.stderr) == (0, "")
        told = self.told(tmp_path)
        assert [line.get("model") for line in told] == ["m", None]
        assert told[-1]["closed"]

    def test_switched_off(self, tmp_path: pathlib.Path) -> None:
        done = self.python(tmp_path, self.PRELUDE + "list(ask('m'))", LLMOPS_MONITORING="false")
        assert (done.returncode, done.stderr) == (0, "")
        assert not (tmp_path / "witness").exists()

    @pytest.mark.parametrize("before", [True, False], ids=["used before the fork", "only loaded before the fork"])
    def test_fork(self, tmp_path: pathlib.Path, before: bool) -> None:
        """Each process tells of its own calls, once; a stream that was under way is the parent's."""
        code = f"""
        if {before}:
            list(ask("before"))
            under_way = ask("under way"); next(under_way)
        child = os.fork()
        list(ask("child" if child == 0 else "parent"))
        if {before}:
            list(under_way)
        if child:
            os.waitpid(child, 0)
        """
        done = self.python(tmp_path, self.PRELUDE + textwrap.dedent(code))
        assert (done.returncode, done.stderr) == (0, "")
        told = self.told(tmp_path)
        expected = ["before", "child", "parent", "under way"] if before else ["child", "parent"]
        assert sorted(line["model"] for line in told if "model" in line) == expected
        pids = {line["model"]: line["pid"] for line in told if "model" in line}
        assert pids["child"] != pids["parent"]
        assert sorted(line["pid"] for line in told if "closed" in line) == sorted({pids["child"], pids["parent"]})

    def test_gevent(self, tmp_path: pathlib.Path) -> None:
        """Patched after Python's start and before Dify, as gunicorn and celery do it; many streams at once."""
        pytest.importorskip("gevent")
        code = """
        import gevent.pool
        play = player.play
        def slowly():
            for item in play():
                gevent.sleep(0.001)
                yield item
        player.play = slowly
        gevent.pool.Pool(20).map(lambda n: list(ask(f"m{n}")), range(50))
        killed = gevent.spawn(lambda: list(ask("killed")))
        gevent.sleep(0.0005)
        killed.kill()
        """
        done = self.python(
            tmp_path, "from gevent import monkey; monkey.patch_all()\n" + self.PRELUDE + textwrap.dedent(code)
        )
        assert (done.returncode, done.stderr) == (0, "")
        told = [line for line in self.told(tmp_path) if "model" in line]
        assert sorted(line["model"] for line in told) == sorted([f"m{n}" for n in range(50)] + ["killed"])
        assert {line["outcome"] for line in told if line["model"] != "killed"} == {"ok"}
        assert [line["outcome"] for line in told if line["model"] == "killed"] == ["cancelled"]

    def test_another_sitecustomize_is_run_too(self, tmp_path: pathlib.Path) -> None:
        write(tmp_path / "api" / "sitecustomize.py", "import builtins\nbuiltins.other_ran = __name__\n")
        done = self.python(tmp_path, self.PRELUDE + "list(ask('m')); print(other_ran)")
        assert (done.stdout.strip(), done.stderr) == ("sitecustomize", "")
        assert self.told(tmp_path)[0]["model"] == "m"

    def test_a_runtime_that_cannot_be_installed_stops_no_program(self, tmp_path: pathlib.Path) -> None:
        broken = tmp_path / "broken"
        write(broken / "llmops_monitoring" / "__init__.py", "raise OSError('no')")
        write(broken / "sitecustomize.py", (MONITORING / "sitecustomize.py").read_text())
        done = self.python(tmp_path, "print('alive')", PYTHONPATH=str(broken))
        assert (done.stdout.strip(), done.stderr) == ("alive", "llmops-monitoring: not installed: OSError\n")

    def test_the_cost_log(self, tmp_path: pathlib.Path) -> None:
        log = tmp_path / "cost.jsonl"
        code = self.PRELUDE + (
            "list(ask('deepseek-r1:1.5b'))\nplayer.answer[:] = [ValueError('x')]\n"
            "try: list(ask('n'))\nexcept ValueError: pass"
        )
        done = self.python(tmp_path, code, COST_LOG, COST_LOG_FILE=str(log))
        assert (done.returncode, done.stderr) == (0, "")
        first, second = (json.loads(line) for line in log.read_text().splitlines())
        assert (first["outcome"], first["prompt_tokens"], first["completion_tokens"]) == ("ok", 7, 3)
        assert (first["cost"], first["currency"], first["user"]) == (0.00000032, "USD", "u-1")
        assert (second["outcome"], second["cost"]) == ("error", 0.0)


class TestCheck:
    """`python -m llmops_monitoring`: what the role asks before it changes anything."""

    @pytest.mark.parametrize(("generation", "named"), [("0.15", "0.15"), ("1.0", "1.0"), ("1.16", "1.3.1")])
    def test_a_known_dify(
        self,
        tmp_path: pathlib.Path,
        generation: str,
        named: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("LLMOPS_MONITORING_PLUGINS", str(COST_LOG.parent))
        assert check.main([str(write_dify(tmp_path, generation))]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["generation"] == named
        assert found["plugins"] == [{"name": "cost-log", "version": "1.0.0", "refused": ""}]
        assert "core" not in sys.modules

    def test_an_unknown_dify(self, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_module(tmp_path, "core.plugin.impl.model", "class PluginModelClient:\n    pass\n")
        assert check.main([str(tmp_path)]) == 1
        assert json.loads(capsys.readouterr().out)["missing"] == ["core.plugin.impl.model:PluginModelClient.invoke_llm"]

    def test_a_refused_plugin(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LLMOPS_MONITORING_PLUGINS", str(tmp_path / "plugins"))
        write_plugin(tmp_path / "plugins" / "p", version="x")
        assert check.main([str(write_dify(tmp_path / "api", "1.16"))]) == 2
        assert "version must be like" in json.loads(capsys.readouterr().out)["plugins"][0]["refused"]


def test_cost_of_a_chunk(start: Callable[..., Dify], capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not judged: `make bench` holds the budget of 20 µs."""
    dify = start()
    client = dify.client()
    original = type(client).invoke_llm.__wrapped__
    dify.player.answer[:] = [dify.player.chunk("a")] * 2000
    dify.player.asked.clear()

    def best(function: Callable[..., Any]) -> float:
        found = []
        for _round in range(5):
            began = time.perf_counter()
            for _chunk in function(client, **ASK, prompt_messages=[]):
                pass
            found.append(time.perf_counter() - began)
        return min(found) / 2000 * 1e6

    plain, seen = best(original), best(type(client).invoke_llm)
    dify.recorder.keep = 8192
    kept = best(type(client).invoke_llm)
    with capsys.disabled():
        print(f"\n  per chunk: +{seen - plain:.2f} µs, with content +{kept - plain:.2f} µs (unwrapped {plain:.2f} µs)")
    assert counters.counters()["ok"] == 10
