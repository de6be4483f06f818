# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wraps one function of Dify so that each call of it is one event, and is otherwise what it was.

A stream runs in a private copy of the caller's context, taken at the first `next` as the client's own code would see
it: what a plugin makes current for the call (a span) is never current for the code that reads the stream, and the
stream may be closed from any thread or greenlet.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from contextvars import Context, copy_context
from time import monotonic
from typing import Any

from . import counters, describe, event, plugins
from .hook import MARK


def wrap(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    names = tuple(inspect.signature(function).parameters)[1:]
    lazy = inspect.isgeneratorfunction(function)

    @functools.wraps(function)
    def monitored(self: Any, *args: Any, **kwargs: Any) -> Any:
        fields = {**dict(zip(names, args)), **kwargs} if args else kwargs
        if lazy:
            return _lazily(function(self, *args, **kwargs), kind, self, fields)
        call = begin(kind, self, fields)
        if call is None:
            return function(self, *args, **kwargs)
        try:
            result = call.context.run(function, self, *args, **kwargs)
        except BaseException as exc:
            call.raised(exc)
            raise
        if hasattr(result, "__next__"):
            return _stream(call, result)
        call.returned(result)
        return result

    setattr(monitored, MARK, True)
    return monitored


def begin(kind: str, owner: Any, fields: Mapping[str, Any]) -> Call | None:
    """None: nobody watches, or something of ours failed. The call goes on as if it were not wrapped."""
    try:
        dispatcher = plugins.dispatcher()
        return None if dispatcher is None else Call(dispatcher, describe.event_of(kind, owner, fields), copy_context())
    except Exception as exc:
        counters.failed("internal.begin", exc)
        counters.count("unseen")
        return None


def _lazily(source: Any, kind: str, owner: Any, fields: Mapping[str, Any]) -> Generator[Any, None, Any]:
    """A generator function does nothing before its first `next`: neither does the event. Never iterated is no call."""
    call = begin(kind, owner, fields)
    del owner, fields
    return (yield from (source if call is None else _stream(call, source)))


def _stream(call: Call, source: Any) -> Generator[Any, None, Any]:
    run, following, note = call.context.run, source.__next__, call.note
    step, thrown = following, None
    try:
        while True:
            try:
                chunk = run(step)
            except StopIteration as end:
                call.exhausted()
                return end.value
            except BaseException as exc:
                own, step, thrown = exc is not thrown, following, None  # let go of it: it knows this frame
                if own:
                    call.raised(exc)
                else:
                    call.left()
                raise
            note(chunk)
            step, thrown = following, None
            try:
                yield chunk
            except GeneratorExit:
                raise
            except BaseException as exc:  # the reader's, thrown in: the source's to deal with, as without us
                throw = getattr(source, "throw", None)
                if throw is None:
                    raise
                step, thrown = functools.partial(throw, exc), exc
                continue
            if call.fresh:  # after the consumer has it: a slow hook holds up no first token
                call.first()
    except BaseException:
        if not call.finished:
            try:
                close = getattr(source, "close", None)
                if close is not None:
                    run(close)
            finally:
                call.left()
        raise


class Call:
    """One call under way."""

    __slots__ = ("_complete", "_keep", "context", "dispatcher", "event", "finished", "fresh")

    def __init__(self, dispatcher: plugins.Dispatcher, told: event.Event, context: Context) -> None:
        self.finished = False
        self.fresh = False
        self._complete = False
        self.dispatcher = dispatcher
        self.event = told
        self.context = told.context = context
        told.start()
        counters.count("calls")
        context.run(dispatcher.fire, "before_invoke", told)
        told._prompt = None
        self._keep = told.content

    def note(self, chunk: Any) -> None:
        told = self.event
        told.last_chunk = now = monotonic()
        told.chunks += 1
        if told.first_chunk is None:
            told.first_chunk = now
            self.fresh = True
        try:
            delta = chunk.delta
            if delta.usage is not None:
                told.usage = describe.usage_of(delta.usage, told.kind)
                told.response_model = getattr(chunk, "model", None)
                self._complete = True
            if delta.finish_reason is not None:
                told.finish_reason = str(delta.finish_reason)
                self._complete = True
            if self._keep is not None:
                self._keep.add(describe.text_of(delta.message.content))
        except Exception as exc:
            counters.failed("internal.chunk", exc)

    def first(self) -> None:
        self.fresh = False
        self._fire("on_first_chunk")

    def exhausted(self) -> None:
        """A stream of nothing raises nothing in Dify, and no model has answered."""
        if self.event.chunks:
            self._finish(event.OK)
        else:
            self._finish(event.ERROR, event.Error("EmptyStream", "", ""))

    def returned(self, result: Any) -> None:
        told = self.event
        try:
            told.response_model = getattr(result, "model", None)
            usage = getattr(result, "usage", None)
            if usage is not None:
                told.usage = describe.usage_of(usage, told.kind)
            if self._keep is not None:
                self._keep.add(describe.text_of(getattr(getattr(result, "message", None), "content", "")))
        except Exception as exc:
            counters.failed("internal.result", exc)
        self._finish(event.OK)

    def left(self) -> None:
        """The reader went away. With the last chunk in hand, or the only one of a call that asked for one, all is well.

        Dify up to 1.7 takes the first chunk of a blocking call and drops the generator.
        """
        told = self.event
        if self._complete or (told.chunks and not told.stream):
            self._finish(event.OK, ended=told.last_chunk)
        else:
            self._finish(event.CANCELLED)

    def raised(self, exc: BaseException) -> None:
        # gevent's Timeout is no Exception and yet a failure; GreenletExit and its like are somebody's wish.
        if not isinstance(exc, Exception) and type(exc).__name__ != "Timeout":
            self._finish(event.CANCELLED)
            return
        try:
            error = describe.error_of(exc, content=self._keep is not None)
        except Exception as trouble:  # an exception whose text cannot be had
            counters.failed("internal.error", trouble)
            error = event.Error(type(exc).__name__, "", "")
        self._finish(event.ERROR, error)

    def _finish(self, outcome: str, error: event.Error | None = None, ended: float | None = None) -> None:
        if self.finished:
            return
        self.finished = True
        if not self.dispatcher.alive:  # a copy of the stream in a forked child: the parent tells of the call
            return
        if self.fresh:
            self.first()
        told = self.event
        told.ended = monotonic() if ended is None else ended
        told.outcome = outcome
        told.error = error
        counters.count(outcome)
        self._fire("on_error" if outcome == event.ERROR else "after_invoke")

    def _fire(self, hook: str) -> None:
        try:
            self.context.run(self.dispatcher.fire, hook, self.event)
        except RuntimeError as exc:  # the context is entered: the collector ends this stream from within it
            counters.failed(f"internal.{hook}", exc)

    def __del__(self) -> None:
        """A stream whose request was sent and that nobody ever read (before 1.0 the call itself sends it)."""
        if not getattr(self, "finished", True):
            try:
                self.left()
            except Exception as exc:  # at interpreter shutdown anything may be gone
                counters.failed("internal.del", exc)
