// Writes the number of a submission, so that the host can see that it ran to its end: some
// drivers report success for work that was cut short.

var<immediate> number: u32;

@group(0) @binding(0) var<storage, read_write> done: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        done[0] = number;
    }
}
