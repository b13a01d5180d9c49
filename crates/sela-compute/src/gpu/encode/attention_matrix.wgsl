// Attention within each sequence on cooperative matrices.
//
// A workgroup takes SUBS * 16 query rows of one sequence in one head, a subgroup 16 of them. KEYS
// keys and values at a time, which all subgroups share: scores by the matrix unit, through workgroup
// memory to the two lanes that have the row, which make weights of them, and by the matrix unit
// again into the output. The output is scaled anew only when a row's largest score has grown by more
// than SLACK: f16 holds weights up to then. No scores are ever in memory.
//
// Assumes: subgroups of 32; heads of HEAD numbers; queries, keys and values side by side in rows of
// `width` numbers, and 15 rows to read after the last of them. A row's bits do not depend on SUBS.
//
// Sizes of workgroup variables are multiples of 16 bytes: drivers round the addresses of matrices
// down to that.

struct Job {
    // Numbers of a row of queries, keys and values.
    width: u32,
    // Numbers of a row of the output.
    out_width: u32,
    heads: u32,
    // Where keys and values lie in a row, in numbers; keys at once, values at twice this.
    part: u32,
    // Where the tiles begin in `tables`.
    tiles: u32,
    // log2(e) / sqrt(HEAD)
    scale: f32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read> projected: array<Quad>;
// The same buffer, as the matrix unit reads it.
@group(0) @binding(1) var<storage, read> queries: array<Cell>;
// First row of a tile; first row and end of its sequence; nothing.
@group(0) @binding(2) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> context: array<Quad>;

// Below every score, and finite: compilers assume that there are no infinities.
const LOW: f32 = -1e30;
// Weights are at most 2^SLACK.
const SLACK: f32 = 11.0;
// Rows lie so far apart that what is read at once hits all banks once.
const HEAD_PITCH: u32 = HEAD + 8u;
const PITCH: u32 = KEYS + 8u;

var<workgroup> keys: array<Cell, KEYS * HEAD_PITCH / CELL>;
var<workgroup> values: array<Cell, KEYS * HEAD_PITCH / CELL>;
var<workgroup> scores: array<Sum, SUBS * 16u * PITCH / SUM>;
var<workgroup> weights: array<Cell, SUBS * 16u * PITCH / CELL>;
var<workgroup> grown: vec4<u32>;

fn scores_at(at: u32) -> vec4<f32> {
//# if WIDE
    return scores[at / 4u];
//# else
    return vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
//# end
}

fn put_scores(at: u32, x: vec4<f32>) {
//# if WIDE
    scores[at / 4u] = x;
//# else
//# for i in 4
    scores[at + $iu] = x[$i];
//# end
//# end
}

fn put_weights(at: u32, x: Quad) {
//# if WIDE
    weights[at / 4u] = x;
//# else
//# for i in 4
    weights[at + $iu] = x[$i];
//# end
//# end
}

fn put_key(at: u32, quad: Quad) {
//# if WIDE
    keys[at / 4u] = quad;
//# else
//# for i in 4
    keys[at + $iu] = quad[$i];
//# end
//# end
}

fn put_value(at: u32, quad: Quad) {
//# if WIDE
    values[at / 4u] = quad;
//# else
//# for i in 4
    values[at + $iu] = quad[$i];
//# end
//# end
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let thread = subgroup * 32u + lane;
    let tile = tables[job.tiles + group.y];
    let end = tile.z;
    let head = group.x;
    let row_quads = job.width / 4u;
    let key_quads = (job.part + head * HEAD) / 4u;
    let strip = subgroup * (16u * PITCH);
    let pitch = PITCH / SUM;
    // Two lanes have a row: every other quad of it each.
    let half = lane % 2u;
    let my_row = strip + lane / 2u * PITCH;
    let first_row = tile.x + subgroup * 16u;

    // A subgroup beyond the sequence works on the first rows once more and writes nothing.
    let query_row = select(tile.x, first_row, first_row < end);
    let query = query_row * job.width + head * HEAD;
//# for i in ROW_SIDES
//# for d in HEAD_SIDES
    let q$i_$d = coopLoadT<Left>(&queries[(query + $iu * SIDE * job.width + $du * SIDE) / CELL], job.width / CELL);
    var o$i_$d: Sums;
//# end
//# end
    var top = LOW;
    var sum = 0.0;

    for (var first = tile.y; first < end; first += KEYS) {
        let count = min(KEYS, end - first);
        // Beyond the sequence lie others: their values must not get near this one.
//# for i in KEY_LOADS
        let key$i = (thread + $iu * THREADS) / HEAD_QUADS;
        let part$i = (thread + $iu * THREADS) % HEAD_QUADS;
        let from$i = min(first + key$i, end - 1u) * row_quads + key_quads + part$i;
        let k$i = select(Quad(), projected[from$i], key$i < count);
        let v$i = select(Quad(), projected[from$i + job.part / 4u], key$i < count);
//# end
        workgroupBarrier();
        if thread == 0u {
            grown = vec4<u32>(0u);
        }
//# for i in KEY_LOADS
        put_key(key$i * HEAD_PITCH + part$i * 4u, k$i);
        put_value(key$i * HEAD_PITCH + part$i * 4u, v$i);
//# end
        workgroupBarrier();

//# for j in KEY_SIDES
        {
//# for i in ROW_SIDES
            var s$i: Sums;
//# end
//# for d in HEAD_SIDES
            let k$d = coopLoad<Right>(&keys[($ju * SIDE * HEAD_PITCH + $du * SIDE) / CELL], HEAD_PITCH / CELL);
//# for i in ROW_SIDES
            s$i = coopMultiplyAdd(q$i_$d, k$d, s$i);
//# end
//# end
//# for i in ROW_SIDES
            let done$i = s$i;
            let to$i = &scores[(strip + $iu * SIDE * PITCH + $ju * SIDE) / SUM];
            coopStoreT(done$i, to$i, pitch);
//# end
        }
//# end
        subgroupBarrier();

        // The lanes that have the row.
        var highest = LOW;
//# for j in KEY_OCTETS
        let c$j = $ju * 8u + half * 4u;
        let live$j = vec4<u32>(c$j, c$j + 1u, c$j + 2u, c$j + 3u) < vec4<u32>(count);
        let s$j = select(vec4<f32>(LOW), scores_at(my_row + c$j) * job.scale, live$j);
        highest = max(highest, max(max(s$j.x, s$j.y), max(s$j.z, s$j.w)));
//# end
        highest = max(highest, subgroupShuffleXor(highest, 1u));
        var keep = 1.0;
        if highest > top + SLACK {
            keep = exp2(max(top - highest, -126.0));
            if first > tile.y {
                grown = vec4<u32>(1u);
            }
            top = highest;
        }
        sum *= keep;
//# for j in KEY_OCTETS
        let p$j = exp2(s$j - top);
        sum += (p$j.x + p$j.y) + (p$j.z + p$j.w);
        put_weights(my_row + c$j, Quad(p$j));
//# end

        if workgroupUniformLoad(&grown).x == 1u {
            // Seldom: the output through workgroup memory, 16 columns at a time.
//# for c in HEAD_STRIPS
            subgroupBarrier();
//# for i in ROW_SIDES
//# for j in ROW_SIDES
            {
                let value = o$i_$(c*ROW_SIDES+j);
                let to = &scores[(strip + $iu * SIDE * PITCH + $ju * SIDE) / SUM];
                coopStoreT(value, to, pitch);
            }
//# end
//# end
            subgroupBarrier();
//# for h in 2
            put_scores(my_row + half * 8u + $hu * 4u, scores_at(my_row + half * 8u + $hu * 4u) * keep);
//# end
            subgroupBarrier();
//# for i in ROW_SIDES
//# for j in ROW_SIDES
            o$i_$(c*ROW_SIDES+j) = coopLoadT<Sums>(&scores[(strip + $iu * SIDE * PITCH + $ju * SIDE) / SUM], pitch);
//# end
//# end
//# end
        }

//# for j in KEY_SIDES
        {
//# for i in ROW_SIDES
            let w$i = coopLoadT<Left>(&weights[(strip + $iu * SIDE * PITCH + $ju * SIDE) / CELL], PITCH / CELL);
//# end
//# for d in HEAD_SIDES
            let v$d = coopLoadT<Right>(&values[($ju * SIDE * HEAD_PITCH + $du * SIDE) / CELL], HEAD_PITCH / CELL);
//# for i in ROW_SIDES
            o$i_$d = coopMultiplyAdd(w$i, v$d, o$i_$d);
//# end
//# end
        }
//# end
    }
    sum += subgroupShuffleXor(sum, 1u);

    // Out, 16 columns at a time.
    let factor = 1.0 / sum;
    let row = first_row + lane / 2u;
    let to_row = (row * job.out_width + head * HEAD + half * 8u) / 4u;
//# for c in HEAD_STRIPS
    subgroupBarrier();
//# for i in ROW_SIDES
//# for j in ROW_SIDES
    {
        let value = o$i_$(c*ROW_SIDES+j);
        let to = &scores[(strip + $iu * SIDE * PITCH + $ju * SIDE) / SUM];
        coopStoreT(value, to, pitch);
    }
//# end
//# end
    subgroupBarrier();
    if row < end {
//# for h in 2
        context[to_row + $cu * 4u + $hu] = Quad(scores_at(my_row + half * 8u + $hu * 4u) * factor);
//# end
    }
//# end
}
