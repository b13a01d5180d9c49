// outputs = gelu?(rows weights^T + bias) in registers, for GPUs without matrix units and for f32.
//
// A workgroup of 64 threads, DOWN x ACROSS, computes (DOWN * ROWS) x (ACROSS * COLS) outputs; a
// thread holds ROWS rows of COLS columns. Operands pass through workgroup memory in f32, DEPTH
// numbers of depth at a time, while the next are on their way from memory.
//
// Assumes: rows padded to DOWN * ROWS, widths to ACROSS * COLS, depth to 16. The sum of an output is
// one chain of multiply-adds over the depth, whatever the tile.

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

const TILE_ROWS: u32 = DOWN * ROWS;
const TILE_COLS: u32 = ACROSS * COLS;
// Four quads of depth and one of padding, so that neighbouring threads read other banks.
const PITCH: u32 = 5u;

var<workgroup> left: array<vec4<f32>, TILE_ROWS * PITCH>;
var<workgroup> right: array<vec4<f32>, TILE_COLS * PITCH>;

// Where column `col` of the tile lies: those that neighbouring threads read at once side by side.
fn seat(col: u32) -> u32 {
    let part = col % (ACROSS * 4u);
    return (col / (ACROSS * 4u) * 4u + col % 4u) * ACROSS + part / 4u;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let first_col = group.x * TILE_COLS;
    let down = thread / ACROSS;
    let across = thread % ACROSS;

    // Each thread carries quads: 64 of them are 16 lines of 16 numbers.
    let line = thread / 4u;
    let quad = thread % 4u;
    let row_quads = job.depth / 4u;
    let from_rows = (first_row + line) * row_quads + quad;
    let from_weights = (first_col + line) * row_quads + quad;

//# for i in ROWS
//# for c in COL_QUADS
    var sum_$i_$c = vec4<f32>(0.0);
//# end
//# end
//# for i in LEFT_LOADS
    var l$i = rows[from_rows + $iu * 16u * row_quads];
//# end
//# for i in RIGHT_LOADS
    var r$i = weights[from_weights + $iu * 16u * row_quads];
//# end

    let steps = job.depth / 16u;
    for (var step = 0u; step < steps; step++) {
        workgroupBarrier();
//# for i in LEFT_LOADS
        left[(line + $iu * 16u) * PITCH + quad] = vec4<f32>(l$i);
//# end
//# for i in RIGHT_LOADS
        right[seat(line + $iu * 16u) * PITCH + quad] = vec4<f32>(r$i);
//# end
        workgroupBarrier();
        // The last step fetches itself once more, so that nothing is read past the end.
        let next = min(step + 1u, steps - 1u);
//# for i in LEFT_LOADS
        l$i = rows[from_rows + next * 4u + $iu * 16u * row_quads];
//# end
//# for i in RIGHT_LOADS
        r$i = weights[from_weights + next * 4u + $iu * 16u * row_quads];
//# end
        for (var k = 0u; k < 4u; k++) {
//# for i in ROWS
            let a$i = left[(down + $iu * DOWN) * PITCH + k];
//# end
//# for c in COL_QUADS
            {
//# for j in 4
                let b$j = right[($cu * 4u + $ju) * ACROSS * PITCH + across * PITCH + k];
//# end
                // Columns as a vector, depth in order.
//# for p in 4
                let d$p = vec4<f32>(b0[$p], b1[$p], b2[$p], b3[$p]);
//# end
//# for i in ROWS
//# for p in 4
                sum_$i_$c = fma(vec4<f32>(a$i[$p]), d$p, sum_$i_$c);
//# end
//# end
            }
//# end
        }
    }

//# for c in COL_QUADS
    {
        let col = first_col + $cu * ACROSS * 4u + across * 4u;
        let add = bias[col / 4u];
//# for i in ROWS
        {
            var x = sum_$i_$c + add;
            if job.activate == 1u {
                x = gelu(x);
            }
            let row = first_row + down + $iu * DOWN;
            outputs[(row * job.width + col) / 4u] = Quad(x);
        }
//# end
    }
//# end
}
