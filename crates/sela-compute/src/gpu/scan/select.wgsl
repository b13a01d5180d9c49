// The groups that may hold one of the k nearest rows, out of the best ranks of all groups.
//
// The k-th largest of the groups' best ranks is a bound that k rows reach, so a group whose best
// is below it by more than the rounding of ranks holds none of the nearest. Two histograms find
// that bound to 22 bits (rounded down, which only takes in more), `pick` lists the groups.
//
// With CHOOSE, one workgroup a query does it alone, and nothing waits for a kernel before: each
// thread finds the best rank of the groups that are its own, and the k-th largest of these is the
// bound. It is a little lower than the k-th largest of all, which takes in a few groups more.
//
// Assumes: `counts` zero when `coarse` begins; THREADS, with CHOOSE, a power of two and at least k;
// workgroup_id.y is the query.

struct Job {
    // Groups of a query in `best`.
    groups: u32,
    // Where the units' largest squared norms begin in `best`, and how many they are.
    peaks: u32,
    units: u32,
    k: u32,
    // Where the queries' slacks begin in `input`, in vectors of 16 bytes.
    slacks: u32,
    // Where the queries' heads begin in `counts`, and their lists; groups a list holds.
    heads: u32,
    lists: u32,
    room: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read> input: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> best: array<f32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;

//# if CHOOSE
// Two halves in turn: what one step of the sort writes is read while the next is written.
var<workgroup> ranks: array<f32, 2u * THREADS>;
var<workgroup> norms: array<f32, THREADS>;
var<workgroup> taken: atomic<u32>;

// The k-th largest of the numbers that the threads hold, by a bitonic sort.
fn kth_largest(thread: u32, held: f32) -> f32 {
    var own = held;
    var half = 0u;
    for (var size = 2u; size <= THREADS; size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            ranks[half + thread] = own;
            workgroupBarrier();
            let other = ranks[half + (thread ^ step)];
            // The last size has this bit in no thread: the largest comes first.
            let descends = (thread & size) == 0u;
            let first = (thread & step) == 0u;
            own = select(min(own, other), max(own, other), descends == first);
            half = THREADS - half;
        }
    }
    ranks[half + thread] = own;
    workgroupBarrier();
    return ranks[half + job.k - 1u];
}

@compute @workgroup_size(THREADS)
fn choose(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    // Memory of a workgroup begins with what was there before; the sort's barriers make this known.
    if thread == 0u {
        atomicStore(&taken, 0u);
    }
    let begin = group.y * job.groups;
    var most = LOW;
    var at = thread;
    // Eight at a time, so that one does not wait for the other.
    for (; at + 7u * THREADS < job.groups; at += 8u * THREADS) {
//# for r in 8
        let rank$r = best[begin + at + $ru * THREADS];
//# end
//# for r in 8
        most = max(most, rank$r);
//# end
    }
    for (; at < job.groups; at += THREADS) {
        most = max(most, best[begin + at]);
    }
    var norm = 0.0;
    for (var i = thread; i < job.units; i += THREADS) {
        norm = max(norm, best[job.peaks + i]);
    }
    norms[thread] = norm;
    let bound = kth_largest(thread, most);
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            norms[thread] = max(norms[thread], norms[thread + half]);
        }
        workgroupBarrier();
    }
    let square = norms[0];
    let reach = sqrt(square) * 1.001;
    let slack = bitcast<vec4<f32>>(input[job.slacks + group.y]);
    // A bound of LOW: all groups with a live row may hold one of the nearest.
    let least = max(LOW, bound - (slack.x + reach * (slack.y + reach * slack.z)));
    let list = job.lists + group.y * job.room * 2u;
    for (at = thread; at < job.groups; at += THREADS) {
        let rank = best[begin + at];
        if rank > LOW && rank >= least {
            let place = atomicAdd(&taken, 1u);
            if place < job.room {
                atomicStore(&counts[list + place * 2u], at);
                atomicStore(&counts[list + place * 2u + 1u], bitcast<u32>(rank));
            }
        }
    }
    workgroupBarrier();
    if thread == 0u {
        let head = job.heads + group.y * 4u;
        atomicStore(&counts[head], atomicLoad(&taken));
        atomicStore(&counts[head + 1u], bitcast<u32>(square));
    }
}
//# else
const BINS: u32 = 2048u;
// Ranks that a workgroup looks at.
const SHARE: u32 = 4096u;

var<workgroup> bins: array<atomic<u32>, BINS>;
var<workgroup> sums: array<u32, 256>;
var<workgroup> found: vec2<u32>;
var<workgroup> largest: array<f32, 256>;

// An integer in the order of the number.
fn key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >> 31u == 1u));
}

// Whether a group's best rank is that of a live row.
fn lives(value: f32) -> bool {
    return value > LOW;
}

fn clear_bins(thread: u32) {
    for (var i = thread; i < BINS; i += 256u) {
        atomicStore(&bins[i], 0u);
    }
    workgroupBarrier();
}

fn add_bins(thread: u32, to: u32) {
    workgroupBarrier();
    for (var i = thread; i < BINS; i += 256u) {
        let count = atomicLoad(&bins[i]);
        if count > 0u {
            atomicAdd(&counts[to + i], count);
        }
    }
}

// The bin, from the top, in which the count reaches `wanted`, and the count above that bin; bin
// NONE when all together do not reach it.
fn reach(thread: u32, begin: u32, wanted: u32) -> vec2<u32> {
    // Thread 0 has the eight highest bins.
    let high = begin + BINS - 1u - thread * 8u;
    var own = 0u;
    for (var i = 0u; i < 8u; i++) {
        own += atomicLoad(&counts[high - i]);
    }
    if thread == 0u {
        found = vec2<u32>(NONE, 0u);
    }
    sums[thread] = own;
    workgroupBarrier();
    for (var reach = 1u; reach < 256u; reach *= 2u) {
        var more = 0u;
        if thread >= reach {
            more = sums[thread - reach];
        }
        workgroupBarrier();
        sums[thread] += more;
        workgroupBarrier();
    }
    let until = sums[thread];
    if until >= wanted && until - own < wanted {
        var above = until - own;
        for (var i = 0u; i < 8u; i++) {
            let count = atomicLoad(&counts[high - i]);
            if above + count >= wanted {
                found = vec2<u32>(high - i - begin, above);
                break;
            }
            above += count;
        }
    }
    workgroupBarrier();
    return found;
}

@compute @workgroup_size(256)
fn coarse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    clear_bins(thread);
    let begin = group.y * job.groups;
    let end = min((group.x + 1u) * SHARE, job.groups);
    for (var i = group.x * SHARE + thread; i < end; i += 256u) {
        let value = best[begin + i];
        if lives(value) {
            atomicAdd(&bins[key(value) >> 21u], 1u);
        }
    }
    add_bins(thread, group.y * BINS * 2u);
}

@compute @workgroup_size(256)
fn fine(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    clear_bins(thread);
    let at = group.y * BINS * 2u;
    let bin = reach(thread, at, job.k).x;
    let begin = group.y * job.groups;
    let end = min((group.x + 1u) * SHARE, job.groups);
    for (var i = group.x * SHARE + thread; i < end; i += 256u) {
        let value = best[begin + i];
        if lives(value) && key(value) >> 21u == bin {
            atomicAdd(&bins[key(value) >> 10u & 2047u], 1u);
        }
    }
    add_bins(thread, at + BINS);
}

@compute @workgroup_size(256)
fn pick(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = group.y * BINS * 2u;
    let bin = reach(thread, at, job.k);
    workgroupBarrier();
    let last = reach(thread, at + BINS, job.k - min(job.k, bin.y));
    // The largest squared norm of all units scanned.
    var most = 0.0;
    for (var i = thread; i < job.units; i += 256u) {
        most = max(most, best[job.peaks + i]);
    }
    largest[thread] = most;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            largest[thread] = max(largest[thread], largest[thread + half]);
        }
    }
    workgroupBarrier();
    let square = largest[0];
    let norm = sqrt(square) * 1.001;
    let slack = bitcast<vec4<f32>>(input[job.slacks + group.y]);
    // Fewer than k groups live: all of them may hold a nearest row.
    var least = LOW;
    if bin.x != NONE && last.x != NONE {
        least = max(LOW, value_of(bin.x << 21u | last.x << 10u) - (slack.x + norm * (slack.y + norm * slack.z)));
    }
    let head = job.heads + group.y * 4u;
    if group.x == 0u && thread == 0u {
        atomicStore(&counts[head + 1u], bitcast<u32>(square));
    }
    let list = job.lists + group.y * job.room * 2u;
    let begin = group.y * job.groups;
    let end = min((group.x + 1u) * SHARE, job.groups);
    for (var i = group.x * SHARE + thread; i < end; i += 256u) {
        let value = best[begin + i];
        if lives(value) && value >= least {
            let place = atomicAdd(&counts[head], 1u);
            if place < job.room {
                atomicStore(&counts[list + place * 2u], i);
                atomicStore(&counts[list + place * 2u + 1u], bitcast<u32>(value));
            }
        }
    }
}
//# end
