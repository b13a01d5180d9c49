// The best rank of each group of 64 rows, for COLS x SIDE queries at once, on cooperative matrices.
//
// A workgroup takes 128 rows of a unit (workgroup_id.y), each of its subgroups 64 of them with all
// queries: TILES x COLS sums of SIDE x SIDE numbers. The queries are scaled by a power of two
// and rounded to f16; the rows are f16 and exact. Ranks: the larger, the nearer; L2 as
// 2 q.r - |r|^2.
//
// Assumes: subgroups of 32; rows of CHUNKS pieces of 16 bytes, two at least; a unit's rows padded
// to 128, with finite numbers; queries beyond the last are zeros.

struct Job {
    // The unit table in `input`, in vectors of 16 bytes; queries and their scales in `numbers`, in
    // halves, and in `input`.
    units: u32,
    queries: u32,
    groups: u32,
    first: u32,
    peaks: u32,
    scales: u32,
    // Queries that count.
    count: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read> slab: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> input: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> best: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<f16>;
@group(0) @binding(4) var<storage, read> numbers: array<f16>;

alias Left = coop_mat$(SIDE)x$(SIDE)<f16, A>;
alias Right = coop_mat$(SIDE)x$(SIDE)<f16, B>;
alias Sums = coop_mat$(SIDE)x$(SIDE)<f32, C>;

// Sums of 64 rows with SIDE queries, for each subgroup, query after query; 68, not 64, so that
// queries side by side hit banks side by side.
const PITCH: u32 = 68u;
var<workgroup> sums: array<f32, 2u * $(SIDE)u * PITCH>;
// What a row's sum is multiplied by and what is added; LOW for a dead row.
var<workgroup> factors: array<f32, 128>;
var<workgroup> offsets: array<f32, 128>;
// The best ranks of parts of a group.
var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let unit = input[job.units + group.y * 2u];
    let first_group = input[job.units + group.y * 2u + 1u].x;
    let tile = group.x * 128u;
    if tile >= unit.z {
        return;
    }
    let thread = subgroup * 32u + lane;
    if group.x == 0u && thread == 0u {
        best[job.peaks + group.y] = bitcast<f32>(slab[unit.y].x);
    }
    for (var i = thread; i < 128u; i += 64u) {
        let row = tile + i;
        var alive = row < unit.z;
        if alive && unit.w != NONE {
            let word = input[(unit.w + row / 32u) / 4u][(unit.w + row / 32u) % 4u];
            alive = (word >> (row % 32u) & 1u) == 1u;
        }
        let square = bitcast<f32>(slab[unit.y + 1u + row / 4u][row % 4u]);
        var factor = 1.0;
        var offset = 0.0;
//# if COSINE
        factor = select(inverseSqrt(max(square, 1e-37)), 0.0, square == 0.0);
//# end
//# if EUCLID
        factor = 2.0;
        offset = -square;
//# end
        factors[i] = factor;
        offsets[i] = select(LOW, offset, alive);
    }

    let pitch = CHUNKS * 8u;
    let begin = unit.x * 8u + (tile + subgroup * 64u) * pitch;
//# for i in TILES
//# for j in COLS
    var sum_$i_$j = Sums();
//# end
//# end
    for (var at = 0u; at < pitch; at += $(SIDE)u) {
//# for i in TILES
        let a$i = coopLoadT<Left>(&rows[begin + $iu * $(SIDE)u * pitch + at], pitch);
//# end
//# for j in COLS
        let b$j = coopLoad<Right>(&numbers[job.queries + $ju * $(SIDE)u * pitch + at], pitch);
//# end
//# for i in TILES
//# for j in COLS
        sum_$i_$j = coopMultiplyAdd(a$i, b$j, sum_$i_$j);
//# end
//# end
    }

    // Thread t ranks query t % SIDE, its share of the rows the t / SIDE-th.
    let own = thread % $(SIDE)u;
    let share = thread / $(SIDE)u;
    let width = 128u / (64u / $(SIDE)u);
//# for j in COLS
    workgroupBarrier();
//# for i in TILES
    {
        let done = sum_$i_$j;
        let to = &sums[subgroup * $(SIDE)u * PITCH + $iu * $(SIDE)u];
        let step = PITCH;
        coopStore(done, to, step);
    }
//# end
    workgroupBarrier();
    {
        let scale = bitcast<f32>(input[job.scales + ($ju * $(SIDE)u + own) / 4u][($ju * $(SIDE)u + own) % 4u]);
        var most = LOW;
        for (var i = 0u; i < width; i++) {
            let row = share * width + i;
            let sum = sums[row / 64u * $(SIDE)u * PITCH + own * PITCH + row % 64u];
            let rank = sum * scale * factors[row] + offsets[row];
            most = max(most, select(rank, LOW, offsets[row] == LOW));
        }
        parts[thread] = most;
    }
    workgroupBarrier();
    if thread < $(SIDE)u * 2u {
        // Each of the two groups has half of the shares.
        let half = thread / $(SIDE)u;
        let shares = 32u / $(SIDE)u;
        var most = LOW;
        for (var i = 0u; i < shares; i++) {
            most = max(most, parts[(half * shares + i) * $(SIDE)u + own]);
        }
        let query = $ju * $(SIDE)u + own;
        if query < job.count && tile + half * 64u < unit.z {
            best[job.first + query * job.groups + first_group + group.x * 2u + half] = most;
        }
    }
//# end
}
