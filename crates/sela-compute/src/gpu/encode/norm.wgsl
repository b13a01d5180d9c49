// Layer normalisation of rows: of embeddings summed up (EMBED), or of a block's outputs added to
// the hidden state it came from. 32 threads take a row, QUADS x 4 numbers each, in f32.
//
// Assumes: rows padded to QUADS * 128 numbers; what lies beyond `hidden` is 0 in the inputs and in
// scale and shift, and is written as 0.

struct Job {
    rows: u32,
    // A multiple of 16.
    hidden: u32,
    epsilon: f32,
}

var<immediate> job: Job;

// All quads of scale, then those of shift.
@group(0) @binding(0) var<storage, read> scale_shift: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> hidden: array<Quad>;
//# if EMBED
@group(0) @binding(2) var<storage, read> words: array<Quad>;
// The sum of position and token type.
@group(0) @binding(3) var<storage, read> positions: array<vec4<f32>>;
// Row in `words` and position, of each token.
@group(0) @binding(4) var<storage, read> tokens: array<vec2<u32>>;
//# else
@group(0) @binding(2) var<storage, read> outputs: array<Quad>;
//# end

const ROW: u32 = QUADS * 32u;

//# if WHOLE
//# else
//# if SUBGROUPS
var<workgroup> parts: array<vec4<f32>, 4>;
//# else
var<workgroup> parts: array<vec4<f32>, 16>;
//# end
//# end

// The sum of `value` over the 32 threads of a row, in one order everywhere.
fn across_row(value: f32, thread: u32) -> f32 {
//# if WHOLE
    return subgroupAdd(value);
//# else
    workgroupBarrier();
//# if SUBGROUPS
    // Subgroups have at least four threads.
    var sum = value + subgroupShuffleXor(value, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    if thread % 4u == 0u {
        parts[thread / 16u][thread / 4u % 4u] = sum;
    }
    workgroupBarrier();
    let at = thread / 32u * 2u;
    let all = parts[at] + parts[at + 1u];
//# else
    parts[thread / 4u][thread % 4u] = value;
    workgroupBarrier();
    let at = thread / 32u * 8u;
    var all = parts[at];
    for (var i = 1u; i < 8u; i++) {
        all += parts[at + i];
    }
//# end
    return (all.x + all.y) + (all.z + all.w);
//# end
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
//# if SUBGROUPS
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
//# else
    @builtin(local_invocation_index) thread: u32,
//# end
) {
//# if SUBGROUPS
    let thread = subgroup * size + lane;
//# end
    let wanted = group.x * 2u + thread / 32u;
    // The last rows once more: every thread meets every barrier.
    let row = min(wanted, job.rows - 1u);
    let first = thread % 32u;
    let count = job.hidden / 4u;
//# if EMBED
    let token = tokens[row];
//# end

    var sum = 0.0;
//# for i in QUADS
    let q$i = first + $iu * 32u;
//# if EMBED
    let v$i = vec4<f32>(words[token.x * ROW + q$i]) + positions[token.y * ROW + q$i];
//# else
    let v$i = vec4<f32>(hidden[row * ROW + q$i]) + vec4<f32>(outputs[row * ROW + q$i]);
//# end
    let w$i = scale_shift[q$i];
    let b$i = scale_shift[ROW + q$i];
//# end
//# for i in QUADS
    sum += (v$i.x + v$i.y) + (v$i.z + v$i.w);
//# end
    let mean = across_row(sum, thread) / f32(job.hidden);
    sum = 0.0;
//# for i in QUADS
    let d$i = select(vec4<f32>(0.0), v$i - mean, q$i < count);
    sum += dot(d$i, d$i);
//# end
    let variance = across_row(sum, thread) / f32(job.hidden);
    let factor = 1.0 / sqrt(variance + job.epsilon);
    if wanted < job.rows {
//# for i in QUADS
        hidden[row * ROW + q$i] = Quad(fma(d$i * factor, w$i, b$i));
//# end
    }
}
