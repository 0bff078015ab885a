"""Several processes that train one run: the first of them, the leader, writes; the others follow what it decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from genjax.io.difference import different
from genjax.io.files import encode_floats
from genjax.types import UserError

T = TypeVar("T")
NONE = -1  # how ``from_leader`` sends None


def is_leader() -> bool:
    """Whether this process writes the files of a run; true where there is only one."""
    return jax.process_index() == 0


def from_leader(function: Callable[[], int | None]) -> int | None:
    """What the leader's ``function`` gives, a whole number from 0 or None, in every process; the others don't call it.

    What lies in a folder may change between the looks that two processes take at it, and all must go on with the same.

    Raises:
      UserError: the leader's function raised; there it is what was raised.
    """
    if jax.process_count() == 1:
        return function()
    value, failure = NONE - 1, None
    if is_leader():
        try:
            found = function()
            value = NONE if found is None else int(found)
        except Exception as error:
            failure = error
    value = int(multihost_utils.broadcast_one_to_all(np.int32(value)))
    if failure is not None:
        raise failure
    if value < NONE:
        raise UserError("the first process of this run could not go on; its own message says why")
    return None if value == NONE else value


def led(lead: Callable[[], T], follow: Callable[[], T]) -> T:
    """``lead()`` in the leader and then, if that did not raise, ``follow()`` in the other processes.

    Raises:
      UserError: the leader could not do its part; there it is what was raised.
    """
    results: list[T] = []
    from_leader(lambda: results.append(lead()))
    return results[0] if results else follow()


def same_settings(settings: Mapping[str, Any]) -> None:
    """Compares what each process was told with what the leader was told: they hold parts of one state.

    Args:
      settings: anything JSON can hold.

    Raises:
      UserError: in all of them, where one was told something else; there the line names it.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps(encode_floats(settings), sort_keys=True).encode()
    length = from_leader(lambda: len(text)) or 0
    held = np.frombuffer(text, np.uint8).astype(np.int32) if is_leader() else np.zeros(length, np.int32)
    led_by = bytes(np.asarray(multihost_utils.broadcast_one_to_all(held)).astype(np.uint8))
    words = "{key} is {old} in the first process and {new} in this one"
    found = different(json.loads(led_by), json.loads(text), words)
    others = np.flatnonzero(multihost_utils.process_allgather(np.array(bool(found)))).tolist()
    if found:
        raise UserError(f"several processes: {found}; start all with the same command")
    if others:
        raise UserError(f"several processes: {others} were told other settings; start all with the same command")
