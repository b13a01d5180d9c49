// Attention within each sequence, a thread a query row: for GPUs without matrix units and for f32.
//
// A workgroup takes 32 query rows of one sequence in two heads. Keys and values pass through
// workgroup memory, KEYS rows at a time; softmax and output are kept up to date as they pass, so
// that no scores are ever in memory.
//
// Assumes: heads of HEAD numbers; queries, keys and values side by side in rows of `width` numbers.

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
// First row of a tile; first row and end of its sequence; nothing.
@group(0) @binding(1) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> context: array<Quad>;

// Below every score, and finite: compilers assume that there are no infinities.
const LOW: f32 = -1e30;

var<workgroup> keys: array<vec4<f32>, 2u * KEYS * HEAD_QUADS>;
var<workgroup> values: array<vec4<f32>, 2u * KEYS * HEAD_QUADS>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tile = tables[job.tiles + group.y];
    let end = tile.z;
    // An odd number of heads: the last workgroup does its head twice and writes it once.
    let wanted_head = group.x * 2u + thread / 32u;
    let head = min(wanted_head, job.heads - 1u);
    let wanted_row = tile.x + thread % 32u;
    let row = min(wanted_row, end - 1u);
    let row_quads = job.width / 4u;
    let mine = thread / 32u * (KEYS * HEAD_QUADS);

    let query = row * row_quads + head * HEAD_QUADS;
//# for d in HEAD_QUADS
    let q$d = vec4<f32>(projected[query + $d]) * job.scale;
    var o$d = vec4<f32>(0.0);
//# end
    var top = LOW;
    var sum = 0.0;

    for (var first = tile.y; first < end; first += KEYS) {
        workgroupBarrier();
        for (var i = thread; i < 2u * KEYS * HEAD_QUADS; i += 64u) {
            let of_head = min(group.x * 2u + i / (KEYS * HEAD_QUADS), job.heads - 1u);
            let key = first + i / HEAD_QUADS % KEYS;
            let at = min(key, end - 1u) * row_quads + (job.part / 4u) + of_head * HEAD_QUADS + i % HEAD_QUADS;
            // Beyond the sequence lie others: their values must not get near this one.
            let live = key < end;
            keys[i] = select(vec4<f32>(0.0), vec4<f32>(projected[at]), live);
            values[i] = select(vec4<f32>(0.0), vec4<f32>(projected[at + job.part / 4u]), live);
        }
        workgroupBarrier();
        let count = min(KEYS, end - first);
        for (var j = 0u; j < count; j += 4u) {
//# for c in 4
            var dot$c = vec4<f32>(0.0);
//# for d in HEAD_QUADS
            dot$c = fma(q$d, keys[mine + (j + $c) * HEAD_QUADS + $d], dot$c);
//# end
//# end
            let scores = vec4<f32>(
                (dot0.x + dot0.y) + (dot0.z + dot0.w),
                (dot1.x + dot1.y) + (dot1.z + dot1.w),
                (dot2.x + dot2.y) + (dot2.z + dot2.w),
                (dot3.x + dot3.y) + (dot3.z + dot3.w),
            );
            let live = vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>(count);
            let s = select(vec4<f32>(LOW), scores, live);
            let higher = max(top, max(max(s.x, s.y), max(s.z, s.w)));
            let keep = exp2(top - higher);
            let p = exp2(s - higher);
            top = higher;
            sum = fma(sum, keep, (p.x + p.y) + (p.z + p.w));
//# for d in HEAD_QUADS
            o$d *= keep;
//# for c in 4
            o$d = fma(vec4<f32>(p[$c]), values[mine + (j + $c) * HEAD_QUADS + $d], o$d);
//# end
//# end
        }
    }

    if wanted_row < end && wanted_head < job.heads {
        let to = row * (job.out_width / 4u) + head * HEAD_QUADS;
        let factor = 1.0 / sum;
//# for d in HEAD_QUADS
        context[to + $d] = Quad(o$d * factor);
//# end
    }
}
