// The squared norm of each row of a unit that has just come in, written behind its rows, and the
// largest of them. A row whose numbers are too small for f32 squares marks the unit: a largest
// norm beyond all limits, so that the CPU searches it.
//
// Assumes: rows of CHUNKS pieces, padded to 128 rows; the vector before the norms is zero.

struct Job {
    // Where the rows begin in `slab`, in words of 4 bytes.
    first: u32,
    // Where the largest squared norm goes; the norms begin 4 words further.
    peak: u32,
    rows: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read_write> slab: array<atomic<u32>>;

fn word(at: u32) -> u32 {
    return atomicLoad(&slab[at]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * 64u + lane;
    if row >= job.rows {
        return;
    }
    let begin = job.first + row * CHUNKS * 4u;
    var square = 0.0;
    var largest = 0u;
    for (var i = 0u; i < CHUNKS * 4u; i++) {
        let bits = word(begin + i);
//# if HALVES
        let pair = unpack2x16float(bits);
        square += dot(pair, pair);
//# else
        let number = bitcast<f32>(bits);
        square += number * number;
        largest = max(largest, bits & 0x7fffffffu);
//# end
    }
    var peak = bitcast<u32>(square);
//# if HALVES
//# else
    if largest > 0u && largest < TINY {
        peak = BEYOND;
    }
//# end
    atomicStore(&slab[job.peak + 4u + row], bitcast<u32>(square));
    atomicMax(&slab[job.peak], peak);
}
