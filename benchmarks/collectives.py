"""What the devices of a mesh exchange in a compiled program, and how long that takes by a simple model."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4,
          "f64": 8, "s64": 8, "u64": 8, "c64": 8}  # fmt: skip
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_LINE = re.compile(rf"= (?P<shapes>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[(\d+),(\d+)\])")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange among groups of devices.

    Attributes:
      kind: one of ``KINDS``.
      bytes: of the whole result of an all-reduce or all-gather, of the whole operand of a reduce-scatter, of what a
        device holds in the other two.
      group: devices that exchange with each other.
    """

    kind: str
    bytes: int
    group: int

    @property
    def traffic(self) -> float:
        """Bytes that each device sends, by the ring algorithms (Patarasuk & Yuan 2009)."""
        if self.kind == "collective-permute":
            return float(self.bytes)
        share = (self.group - 1) / self.group
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)

    @property
    def rounds(self) -> int:
        """Messages one after the other."""
        if self.kind == "collective-permute":
            return 1
        return (self.group - 1) * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str, devices: int) -> list[Collective]:
    """Every exchange in the text of a compiled program (``compiled.as_text()``); one in a loop counts once."""
    found = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        size = sum(_BYTES.get(dtype, 4) * math.prod(int(n) for n in sides.split(",") if n)
                   for dtype, sides in _SHAPE.findall(match["shapes"]))  # fmt: skip
        groups = _GROUPS.search(line)
        group = devices if groups is None else len(groups[1].split(",")) if groups[1] else int(groups[3])
        if match["start"] and match["kind"] in ("all-gather", "collective-permute"):
            size = size * group // (group + 1) if match["kind"] == "all-gather" else size // 2  # operand and result
        if match["kind"] == "reduce-scatter":
            size *= group
        if group > 1:
            found.append(Collective(match["kind"], size, group))
    return found


def totals(found: Iterable[Collective]) -> dict[str, tuple[int, float]]:
    """How many of each kind, and the bytes that each device sends for them."""
    result: dict[str, tuple[int, float]] = {}
    for item in found:
        count, traffic = result.get(item.kind, (0, 0.0))
        result[item.kind] = count + 1, traffic + item.traffic
    return result


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices in nodes.

    Attributes:
      name: for people.
      flops: of matrix products in bfloat16 on one device, per second.
      utilisation: the share of it that training is taken to reach.
      node: devices that share the fast links.
      inside, across: bytes per second that a device sends within its node, and to another node.
      latency: seconds of a message.
    """

    name: str
    flops: float
    utilisation: float
    node: int
    inside: float
    across: float
    latency: float

    def seconds(self, traffic: float, rounds: int, group: int) -> float:
        """Of an exchange among ``group`` devices: the slowest link of the ring decides."""
        return traffic / (self.inside if group <= self.node else self.across) + rounds * self.latency


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step by the model, in seconds: what a device computes, and what it exchanges."""

    compute: float
    exchange: float

    @property
    def efficiency(self) -> float:
        """Computation's share of the time where nothing overlaps; it can only be better."""
        return self.compute / (self.compute + self.exchange)

    @property
    def overlapped(self) -> float:
        """The same where all exchange runs behind the computation, as far as it fits."""
        return self.compute / max(self.compute, self.exchange)


def data_parallel(machine: Machine, devices: int, parameters: int, flops: float, bytes_per_value: int = 4) -> Step:
    """A step in which every device holds the whole state: one all-reduce of the gradient.

    Args:
      machine: with the links.
      devices: in all.
      parameters: values in the gradient.
      flops: of the step on one device.
      bytes_per_value: of the gradient.
    """
    exchange = Collective("all-reduce", parameters * bytes_per_value, devices)
    return _step(machine, flops, [exchange] if devices > 1 else [])


def fully_sharded(machine: Machine, devices: int, parameters: int, flops: float, bytes_per_value: int = 4) -> Step:
    """A step in which the state is divided among all devices: parameters are gathered twice, gradients scattered."""
    size = parameters * bytes_per_value
    exchange = [Collective("all-gather", size, devices)] * 2 + [Collective("reduce-scatter", size, devices)]
    return _step(machine, flops, exchange if devices > 1 else [])


def _step(machine: Machine, flops: float, exchanges: Iterable[Collective]) -> Step:
    seconds = sum(machine.seconds(item.traffic, item.rounds, item.group) for item in exchanges)
    return Step(flops / (machine.flops * machine.utilisation), seconds)
