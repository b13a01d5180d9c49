// The best rank of each group of 32 rows, for QUERIES queries at once; every row is read once.
//
// A workgroup takes 128 rows of a unit (workgroup_id.y): a team of 8 threads reads a row in
// pieces of 16 bytes, side by side, and each team has 4 rows under way. Ranks: the larger, the
// nearer; L2 as 2 q.r - |r|^2.
//
// Assumes: rows of CHUNKS pieces, their padding zero; a unit's rows padded to 128; with SUBGROUP,
// subgroups of 8 threads or more.

struct Job {
    // The unit table in `input`, and the first of the queries, in vectors of 16 bytes.
    units: u32,
    queries: u32,
    // Groups of a query in `best`, and where this dispatch's first query begins in it.
    groups: u32,
    first: u32,
    // Where the largest squared norm of unit 0 goes in `best`.
    peaks: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read> slab: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> input: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> best: array<f32>;

// Eight partial sums of each row; 132, not 128, so that a team's eight hit eight banks.
var<workgroup> partial: array<f32, 8 * 132>;
var<workgroup> scores: array<f32, 128>;
var<workgroup> eighths: array<f32, 32>;

//# if HALVES
fn low(piece: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(piece.x), unpack2x16float(piece.y));
}

fn high(piece: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(piece.z), unpack2x16float(piece.w));
}
//# end

// The rank of a row, LOW for a dead one.
fn rank(sum: f32, row: u32, unit: vec4<u32>) -> f32 {
    var alive = row < unit.z;
    if alive && unit.w != NONE {
        let word = input[(unit.w + row / 32u) / 4u][(unit.w + row / 32u) % 4u];
        alive = (word >> (row % 32u) & 1u) == 1u;
    }
    var value = sum;
//# if NORMS
    let square = bitcast<f32>(slab[unit.y + 1u + row / 4u][row % 4u]);
//# end
//# if COSINE
    value = select(sum * inverseSqrt(max(square, 1e-37)), 0.0, square == 0.0);
//# end
//# if EUCLID
    value = 2.0 * sum - square;
//# end
    return select(LOW, value, alive);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
//# if SUBGROUP
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
//# end
) {
    // Where the rows begin, where their peak and squared norms do, rows, first word of the bitmap.
    let unit = input[job.units + group.y * 2u];
    let first_group = input[job.units + group.y * 2u + 1u].x;
    let tile = group.x * 128u;
    if tile >= unit.z {
        return;
    }
    if group.x == 0u && index == 0u {
        best[job.peaks + group.y] = bitcast<f32>(slab[unit.y].x);
    }
//# if SUBGROUP
    let thread = subgroup * size + invocation;
//# else
    let thread = index;
//# end
    let lane = thread % 8u;
    let team = thread / 8u;
    let base = unit.x + (tile + team) * CHUNKS + lane;

//# for q in QUERIES
    var sum$q = vec4<f32>();
//# end
    for (var step = 0u; step < STEPS; step++) {
        let chunk = step * 8u + lane;
        if WHOLE || chunk < CHUNKS {
            let at = base + step * 8u;
//# for r in 4
            let piece$r = slab[at + $ru * 32u * CHUNKS];
//# end
//# if HALVES
//# for r in 4
            let low$r = low(piece$r);
            let high$r = high(piece$r);
//# end
//# for q in QUERIES
            {
                let query = job.queries + ($qu * CHUNKS + chunk) * 2u;
                let a = bitcast<vec4<f32>>(input[query]);
                let b = bitcast<vec4<f32>>(input[query + 1u]);
                sum$q += vec4<f32>(
                    dot(low0, a) + dot(high0, b),
                    dot(low1, a) + dot(high1, b),
                    dot(low2, a) + dot(high2, b),
                    dot(low3, a) + dot(high3, b),
                );
            }
//# end
//# else
//# for r in 4
            let row$r = bitcast<vec4<f32>>(piece$r);
//# end
//# for q in QUERIES
            {
                let a = bitcast<vec4<f32>>(input[job.queries + $qu * CHUNKS + chunk]);
                sum$q += vec4<f32>(dot(row0, a), dot(row1, a), dot(row2, a), dot(row3, a));
            }
//# end
//# end
        }
    }

//# for q in QUERIES
//# if SUBGROUP
    sum$q += subgroupShuffleXor(sum$q, 1u);
    sum$q += subgroupShuffleXor(sum$q, 2u);
    sum$q += subgroupShuffleXor(sum$q, 4u);
    if lane < 4u {
        let row = lane * 32u + team;
        scores[row] = rank(sum$q[lane], tile + row, unit);
    }
//# else
//# for r in 4
    partial[lane * 132u + $ru * 32u + team] = sum$q[$r];
//# end
    workgroupBarrier();
    if thread < 128u {
        var sum = 0.0;
        for (var i = 0u; i < 8u; i++) {
            sum += partial[i * 132u + thread];
        }
        scores[thread] = rank(sum, tile + thread, unit);
    }
//# end
    workgroupBarrier();
    if thread < 32u {
        let at = thread * 4u;
        eighths[thread] = max(max(scores[at], scores[at + 1u]), max(scores[at + 2u], scores[at + 3u]));
    }
    workgroupBarrier();
    if thread < 4u && tile + thread * 32u < unit.z {
        var most = LOW;
        for (var i = 0u; i < 8u; i++) {
            most = max(most, eighths[thread * 8u + i]);
        }
        best[job.first + $qu * job.groups + first_group + group.x * 4u + thread] = most;
    }
//# end
}
