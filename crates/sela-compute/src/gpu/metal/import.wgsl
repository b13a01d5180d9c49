// Adds its index to every word, so that the host can tell whether imported memory was read where
// it is, and all of it.

@group(0) @binding(0) var<storage, read> imported: array<u32>;
@group(0) @binding(1) var<storage, read_write> answer: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&imported) {
        answer[id.x] = imported[id.x] + id.x;
    }
}
