// outputs = gelu?(rows weights^T + bias) on cooperative matrices, through workgroup memory.
//
// A workgroup computes TILE_ROWS x TILE_COLS outputs with SUB_ROWS x SUB_COLS subgroups; a subgroup
// holds ROWS x COLS sums of SIDE x SIDE numbers. While a step of DEPTH numbers is multiplied, the
// next is on its way from memory.
//
// Assumes: subgroups of 32; rows padded to TILE_ROWS, widths to TILE_COLS, depth to DEPTH. The sum
// of an output is one chain over the depth, SIDE numbers at a time, whatever the tile.
//
// Sizes of workgroup variables are multiples of 16 bytes: drivers round the addresses of matrices
// down to that.

struct Job {
    // Numbers of an input row.
    depth: u32,
    // Numbers of an output row.
    width: u32,
    // 1 for GELU.
    activate: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read> rows: array<Quad>;
@group(0) @binding(1) var<storage, read> weights: array<Quad>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> outputs: array<Quad>;

// Rows lie PITCH numbers apart: eight of them, 16 bytes each, then hit all banks once.
const PITCH: u32 = DEPTH + 8u;

// BUFFERS steps each.
var<workgroup> left: array<Cell, BUFFERS * TILE_ROWS * PITCH / CELL>;
var<workgroup> right: array<Cell, BUFFERS * TILE_COLS * PITCH / CELL>;
// Sums of each subgroup on their way out, 16 x 16 at a time.
var<workgroup> strips: array<Sum, SUB_ROWS * SUB_COLS * 256u / SUM>;

fn strip_at(at: u32) -> vec4<f32> {
//# if WIDE
    return strips[at / 4u];
//# else
    return vec4<f32>(strips[at], strips[at + 1u], strips[at + 2u], strips[at + 3u]);
//# end
}

fn put_left(at: u32, quad: Quad) {
//# if WIDE
    left[at / 4u] = quad;
//# else
//# for i in 4
    left[at + $iu] = quad[$i];
//# end
//# end
}

fn put_right(at: u32, quad: Quad) {
//# if WIDE
    right[at / 4u] = quad;
//# else
//# for i in 4
    right[at + $iu] = quad[$i];
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
    let sub_row = subgroup / SUB_COLS * (ROWS * SIDE);
    let sub_col = subgroup % SUB_COLS * (COLS * SIDE);
    let first_row = group.y * TILE_ROWS;
    let first_col = group.x * TILE_COLS;

    // Each thread carries quads of a row; THREADS quads are SPAN whole rows.
    let line = thread / (DEPTH / 4u);
    let quad = thread % (DEPTH / 4u);
    let place = line * PITCH + quad * 4u;
    let row_quads = job.depth / 4u;
    let from_rows = (first_row + line) * row_quads + quad;
    let from_weights = (first_col + line) * row_quads + quad;
    let jump = SPAN * row_quads;
    let steps = job.depth / DEPTH;

//# for i in ROWS
//# for j in COLS
    var sum_$i_$j: Sums;
//# end
//# end
    {
//# for i in LEFT_LOADS
        let l$i = rows[from_rows + $iu * jump];
//# end
//# for i in RIGHT_LOADS
        let r$i = weights[from_weights + $iu * jump];
//# end
//# for i in LEFT_LOADS
        put_left(place + $iu * SPAN * PITCH, l$i);
//# end
//# for i in RIGHT_LOADS
        put_right(place + $iu * SPAN * PITCH, r$i);
//# end
    }
    workgroupBarrier();
    // All steps but the last, which fetch the next one (e = 0); then the last (e = 1).
//# for e in 2
//# if e
    {
        let step = steps - 1u;
//# else
    for (var step = 0u; step + 1u < steps; step++) {
//# for i in LEFT_LOADS
        let l$i = rows[from_rows + (step + 1u) * (DEPTH / 4u) + $iu * jump];
//# end
//# for i in RIGHT_LOADS
        let r$i = weights[from_weights + (step + 1u) * (DEPTH / 4u) + $iu * jump];
//# end
//# end
        let in_left = step % BUFFERS * (TILE_ROWS * PITCH);
        let in_right = step % BUFFERS * (TILE_COLS * PITCH);
//# for k in DEPTH_SIDES
        {
//# for i in ROWS
            let a$i = coopLoadT<Left>(&left[(in_left + (sub_row + $iu * SIDE) * PITCH + $ku * SIDE) / CELL], PITCH / CELL);
//# end
//# for j in COLS
            let b$j = coopLoad<Right>(&right[(in_right + (sub_col + $ju * SIDE) * PITCH + $ku * SIDE) / CELL], PITCH / CELL);
//# end
//# for i in ROWS
//# for j in COLS
            sum_$i_$j = coopMultiplyAdd(a$i, b$j, sum_$i_$j);
//# end
//# end
        }
//# end
//# if e
    }
//# else
//# if DOUBLE
//# else
        workgroupBarrier();
//# end
        // With two buffers nobody reads this one any more: all have passed the last barrier.
        let to_left = (step + 1u) % BUFFERS * (TILE_ROWS * PITCH);
        let to_right = (step + 1u) % BUFFERS * (TILE_COLS * PITCH);
//# for i in LEFT_LOADS
        put_left(to_left + place + $iu * SPAN * PITCH, l$i);
//# end
//# for i in RIGHT_LOADS
        put_right(to_right + place + $iu * SPAN * PITCH, r$i);
//# end
        workgroupBarrier();
    }
//# end
//# end

    // Out, 16 x 16 sums of each subgroup at a time. Four lanes write a row: whole sectors.
    let strip = subgroup * 256u;
    let pitch = 16u / SUM;
    let row = first_row + sub_row + lane / 4u;
    let col = first_col + sub_col + lane % 4u * 4u;
//# for u in STRIPS_DOWN
//# for v in STRIPS_ACROSS
    {
        subgroupBarrier();
//# for i in STRIP_SIDES
//# for j in STRIP_SIDES
        {
            let value = sum_$(u*STRIP_SIDES+i)_$(v*STRIP_SIDES+j);
            let to = &strips[(strip + $iu * SIDE * 16u + $ju * SIDE) / SUM];
            coopStoreT(value, to, pitch);
        }
//# end
//# end
        subgroupBarrier();
        let add = bias[(col + $vu * 16u) / 4u];
//# for h in 2
        {
            var x = strip_at(strip + $hu * 128u + lane * 4u) + add;
            if job.activate == 1u {
                x = gelu(x);
            }
            outputs[((row + $uu * 16u + $hu * 8u) * job.width + col + $vu * 16u) / 4u] = Quad(x);
        }
//# end
    }
//# end
//# end
}
