// Writes the number of a submission, so that the host can see that it ran to its end: some
// drivers report success for work that was cut short.

// A struct, for DX12 takes nothing else.
struct Job {
    number: u32,
}

var<immediate> job: Job;

@group(0) @binding(0) var<storage, read_write> done: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        done[0] = job.number;
    }
}
