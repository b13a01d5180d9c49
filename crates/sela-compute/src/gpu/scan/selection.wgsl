// What the kernels that select groups are given; stands before `choose.wgsl` and `select.wgsl`.

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

