// The groups that may hold one of the k nearest rows, chosen by one workgroup a query.
//
// Each thread finds the best rank of the groups that are its own. The k-th largest of these is a
// bound that k rows reach, so a group whose best is below it by more than the rounding of ranks
// holds none of the nearest. It is a little lower than the k-th largest of all ranks, which takes
// in a few groups more; three kernels that count (`select.wgsl`) find that one, but each waits for
// the one before.
//
// Assumes: THREADS a power of two and at least k; workgroup_id.y is the query.

@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

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
                counts[list + place * 2u] = at;
                counts[list + place * 2u + 1u] = bitcast<u32>(rank);
            }
        }
    }
    workgroupBarrier();
    if thread == 0u {
        let head = job.heads + group.y * 4u;
        counts[head] = atomicLoad(&taken);
        counts[head + 1u] = bitcast<u32>(square);
    }
}
