// Exact (erf) GELU, x / 2 (1 + erf(x / sqrt 2)), by Abramowitz and Stegun 7.1.26: at most 1.5e-7
// off in erf. The tail is multiplied by x on both sides of zero, so that nothing cancels.
fn gelu(x: vec4<f32>) -> vec4<f32> {
    let z = abs(x) * 0.70710678;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    var tail = fma(t, vec4<f32>(1.061405429), vec4<f32>(-1.453152027));
    tail = fma(t, tail, vec4<f32>(1.421413741));
    tail = fma(t, tail, vec4<f32>(-0.284496736));
    tail = fma(t, tail, vec4<f32>(0.254829592));
    // erfc(z) / 2; beyond 10 it is 0 in f32, and the square must stay finite.
    let least = min(z, vec4<f32>(10.0));
    tail = 0.5 * t * tail * exp(-least * least);
    return max(x, vec4<f32>(0.0)) - abs(x) * tail;
}
