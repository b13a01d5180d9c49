//! The plain scalar twin of every kernel: slow, obvious, never optimised.
//!
//! The canonical scores here *define* what a search returns; every fast kernel must give the
//! same bits. The encoder passes here define what the fast passes approximate, within the
//! tolerance that their tests state.

/// Number of virtual lanes of a canonical sum.
pub const LANES: usize = 16;

/// Adds 16 lanes by a fixed tree: lane `i` plus lane `i + 8`, then `+ 4`, `+ 2`, `+ 1`.
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The canonical sum of `term(a[i], b[i], accumulator)`: element `i` goes to lane `i % 16`, in
/// order; a last group shorter than 16 is filled up with zeros on both sides.
fn lanes_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut lanes = [0f32; LANES];
    for i in 0..a.len().next_multiple_of(LANES) {
        let x = a.get(i).copied().unwrap_or(0.0);
        let y = b.get(i).copied().unwrap_or(0.0);
        lanes[i % LANES] = term(x, y, lanes[i % LANES]);
    }
    tree(lanes)
}

/// Canonical dot product: 16 lanes of fused multiply-adds, then a fixed tree.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes_of(a, b, |x, y, sum| x.mul_add(y, sum))
}

/// Canonical Euclidean norm: the square root of [`dot`] of a vector with itself.
pub fn norm(a: &[f32]) -> f32 {
    dot(a, a).sqrt()
}

/// Canonical cosine: `dot / (norm(a) * norm(b))`, and 0 when that product of norms is 0.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let norms = norm(a) * norm(b);
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// Canonical Euclidean distance: differences squared by fused multiply-add in 16 lanes, the fixed
/// tree, the square root.
pub fn l2(a: &[f32], b: &[f32]) -> f32 {
    lanes_of(a, b, |x, y, sum| {
        let d = x - y;
        d.mul_add(d, sum)
    })
    .sqrt()
}
