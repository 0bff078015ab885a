"""The argument of a config: ``file.py:accelerator=gpu,smoke``."""

from __future__ import annotations

import dataclasses

from configs.accelerators import ACCELERATORS
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Args:
    """What may stand behind the colon.

    Attributes:
      accelerator: cpu, gpu, tpu, or auto for the best that is there.
      smoke: shrink the run to seconds, for tests.
    """

    accelerator: str = "auto"
    smoke: bool = False


def parse(arg: str | None) -> Args:
    """Args of ``"accelerator=cpu,smoke"``.

    Raises:
      UserError: anything that is not understood.
    """
    values: dict[str, object] = {}
    accepted = f"accelerator={'|'.join(sorted((*ACCELERATORS, 'auto')))} and smoke, separated by a comma"
    for part in (arg or "").split(","):
        key, _, value = part.strip().partition("=")
        if key == "accelerator" and (value in ACCELERATORS or value == "auto"):
            values[key] = value
        elif key == "smoke" and value in ("", "true", "false"):
            values[key] = value != "false"
        elif part.strip():
            raise UserError(f"config argument {part.strip()!r} is not understood; accepted: {accepted}")
    return Args(**values)  # type: ignore[arg-type]
