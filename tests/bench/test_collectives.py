"""What is read from a program's text: planted loops with known sums, and compiled programs with known bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxrec.bench.collectives import collectives, repeated, totals

PLANTED = """\
HloModule jit_run, is_scheduled=true, replica_count=1, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %r = (f32[4]{0}, /*index=1*/bf16[2,3]{1,0:T(8,128)}) all-reduce(%x, %y), replica_groups={{0,1,2},{3,4,5}}
}

%taken (p: f32[8]) -> f32[8] {
  %g = s32[8,2]{1,0} all-gather(%p), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
}

%left (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
}

%step (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %w = (s32[], f32[4]{0}) while(%t), condition=%left, body=%inner, backend_config={"known_trip_count":{"n":"3"},"n":"9"}
  %c = f32[8]{0} conditional(%q, %u, %v), branch_computations={%taken, %left}
  %m = pred[5]{0} collective-permute(%v), channel_id=2, source_target_pairs={{4,0},{5,1}}
}

%wrapped (p: f32[16]) -> f32[2] {
  %rs = f32[2]{0} reduce-scatter(%p), replica_groups={}, dimensions={0}, to_apply=%add
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %loop = (s32[], f32[4]{0}) while(%t), condition=%left, body=%step
  %s = (f32[1,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%p), replica_groups={}, dimensions={0}
  %d = f32[8,4]{1,0} all-gather-done(%s)
  %async = ((f32[16]{0}), f32[2]{0}) async-start(%p), calls=%wrapped
}
"""


def test_a_planted_program_is_read_with_its_loops_branches_and_groups():
    found = {one.kind + str(one.size): one for one in collectives(PLANTED)}
    assert {name: (one.group, one.loops, one.times) for name, one in found.items()} == {
        "all-reduce28": (3, (None, 3), 3),
        "all-gather64": (2, (None,), 1),
        "collective-permute5": (2, (None,), 1),
        "all-gather128": (8, (), 1),
        "reduce-scatter8": (8, (), 1),
    }
    assert found["all-reduce28"].shapes == ("f32[4]", "bf16[2,3]")
    sent = {"all-reduce28": 3 * 28 * 4 / 3, "all-gather64": 32, "collective-permute5": 5, "all-gather128": 112,
            "reduce-scatter8": 56}  # fmt: skip
    assert {name: one.sent for name, one in found.items()} == sent
    assert len(repeated(found.values())) == 3
    assert totals(found.values())["all-gather"] == {"times": 2, "bytes": 192, "sent": 144.0}


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        collectives("some text")


def compiled(fn, shape, spec, out, groups=8):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(-1, groups), ("rows", "a"))
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=out, check_vma=False)
    return collectives(jax.jit(mapped).lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile().as_text())


def summed(x):
    return jax.lax.psum(x, "a")


def gathered(x):
    return jax.lax.all_gather(x, "a")


def scanned(x):
    return jax.lax.scan(lambda total, part: (total + jax.lax.psum(part, "a"), None), jnp.zeros(6), x)[0]


def until(x):
    return jax.lax.while_loop(lambda x: jnp.max(x) > 0, lambda x: jax.lax.psum(x, "a") - 1, x)


@pytest.mark.parametrize(
    ("fn", "shape", "groups", "wanted"),
    [
        (summed, (5, 6), 8, {"all-reduce": {"times": 1, "bytes": 120, "sent": 210.0}}),
        (summed, (5, 6), 2, {"all-reduce": {"times": 1, "bytes": 120, "sent": 120.0}}),
        (scanned, (7, 6), 8, {"all-reduce": {"times": 7, "bytes": 168, "sent": 294.0}}),
        (until, (6,), 4, {"all-reduce": {"times": 1, "bytes": 24, "sent": 36.0}}),
        (gathered, (6,), 8, {"all-gather": {"times": 1, "bytes": 192, "sent": 168.0}}),
    ],
    ids=["sum", "sum of pairs", "sums in a scan", "sums until", "gather"],
)
def test_a_compiled_program_sends_what_was_written(fn, shape, groups, wanted):
    found = compiled(fn, shape, PartitionSpec(), PartitionSpec(), groups)
    assert totals(found) == wanted
    assert len(repeated(found)) == (fn is until)
