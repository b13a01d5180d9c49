// One vector a sequence: the mean of its rows or the first of them, scaled to length 1 if asked.
// A workgroup takes a sequence, a thread QUADS x 4 of its columns.
//
// Assumes: rows of ROW quads.

struct Job {
    // A multiple of 16.
    hidden: u32,
    // 1 for the mean.
    mean: u32,
    // 1 for length 1.
    unit: u32,
    // Where the spans begin in `tables`.
    spans: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read> hidden: array<Quad>;
// First row and end of each sequence.
@group(0) @binding(1) var<storage, read> tables: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> vectors: array<vec4<f32>>;

var<workgroup> parts: array<f32, 128>;

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let sequence = group.x;
    let span = tables[job.spans + sequence];
    let end = select(span.x + 1u, span.y, job.mean == 1u);
    let count = job.hidden / 4u;

//# for i in QUADS
    // Columns beyond the row are those of the last quad, and count for nothing.
    let q$i = min(thread + $i * 128u, ROW - 1u);
    var v$i = vec4<f32>(0.0);
//# end
    // Eight rows are asked for at once and added in their order.
    for (var row = span.x; row < end; row += 8u) {
//# for i in QUADS
//# for r in 8
        let x$i_$r = vec4<f32>(hidden[min(row + $ru, end - 1u) * ROW + q$i]);
//# end
//# end
//# for i in QUADS
//# for r in 8
        v$i += select(vec4<f32>(0.0), x$i_$r, row + $ru < end);
//# end
//# end
    }
    let scale = 1.0 / f32(end - span.x);
    var size = 0.0;
//# for i in QUADS
    v$i *= scale;
    size += select(0.0, dot(v$i, v$i), thread + $i * 128u < count);
//# end
    parts[thread] = size;
    workgroupBarrier();
    for (var half = 64u; half > 0u; half /= 2u) {
        if thread < half {
            parts[thread] += parts[thread + half];
        }
        workgroupBarrier();
    }
    let length = sqrt(parts[0]);
    // As on the CPU: a length below 1e-12 counts as 1e-12.
    let factor = select(1.0, 1.0 / max(length, 1e-12), job.unit == 1u);
//# for i in QUADS
    if thread + $i * 128u < count {
        vectors[sequence * count + thread + $i * 128u] = v$i * factor;
    }
//# end
}
