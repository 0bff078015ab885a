"""What is read off a compiled program, and the model of its cost, against counts by hand."""

from __future__ import annotations

import pytest

from benchmarks.collectives import Collective, Machine, collectives, data_parallel, fully_sharded, totals

PROGRAM = """
  %all-reduce.1 = f32[128,4]{1,0} all-reduce(f32[128,4]{1,0} %x), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %all-reduce = (f32[10]{0}, f32[]) all-reduce(f32[10]{0} %a, f32[] %b), replica_groups=[4,2]<=[8], to_apply=%add
  %ag = bf16[64,32]{1,0} all-gather(bf16[16,32]{1,0} %p), replica_groups=[2,4]<=[8], dimensions={0}
  %rs = f32[8]{0} reduce-scatter(f32[64]{0} %g), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %cp = f32[6]{0} collective-permute(f32[6]{0} %g), source_target_pairs={{0,1},{1,0}}
  %one = f32[6]{0} all-reduce(f32[6]{0} %g), replica_groups={{0},{1}}, to_apply=%add
  %sum = f32[6]{0} add(%all-reduce.1, %x)
"""


def test_exchanges_are_counted_in_a_program():
    found = collectives(PROGRAM, 8)
    assert found == [
        Collective("all-reduce", 128 * 4 * 4, 8),
        Collective("all-reduce", 44, 2),
        Collective("all-gather", 64 * 32 * 2, 4),
        Collective("reduce-scatter", 64 * 4, 8),
        Collective("collective-permute", 24, 8),
    ]
    count, traffic = totals(found)["all-reduce"]
    assert count == 2 and traffic == pytest.approx(2048 * 2 * 7 / 8 + 44 * 2 / 2)


def test_traffic_by_the_ring_algorithms():
    size = 8_000
    assert Collective("all-reduce", size, 8).traffic == 2 * 7 * (size / 8)
    assert Collective("all-gather", size, 8).traffic == Collective("reduce-scatter", size, 8).traffic == 7 * size / 8
    # An all-reduce is a reduce-scatter and an all-gather.
    both = sum(Collective(kind, size, 5).traffic for kind in ("all-gather", "reduce-scatter"))
    assert Collective("all-reduce", size, 5).traffic == both


def test_the_model_has_its_limits_right():
    machine = Machine("", flops=1e12, utilisation=0.5, node=8, inside=1e9, across=1e8, latency=0.0)
    alone = data_parallel(machine, 1, 10**6, 1e12)
    assert (alone.compute, alone.exchange, alone.efficiency) == (2.0, 0.0, 1.0)
    eight = data_parallel(machine, 8, 10**6, 1e12)
    assert eight.exchange == pytest.approx(4e6 * 2 * 7 / 8 / 1e9)
    many = data_parallel(machine, 10**6, 10**6, 1e12)
    assert many.exchange == pytest.approx(4e6 * 2 / 1e8, rel=1e-5)  # does not grow with devices, but for messages
    assert fully_sharded(machine, 8, 10**6, 1e12).exchange == pytest.approx(1.5 * eight.exchange)
    assert many.efficiency < many.overlapped == 1.0
    slow = Machine("", 1e12, 0.5, 8, 1e9, 1e8, latency=1e-3)
    assert data_parallel(slow, 512, 10**6, 1e12).exchange > data_parallel(machine, 512, 10**6, 1e12).exchange + 1.0
