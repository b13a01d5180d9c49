//! From texts to vectors: tokenising, batches by length, several of them under way at once.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use sela_compute::encode::{Ragged, Share};

use super::backend::{Backend, Waiting};
use crate::error::Error;
use crate::tokens::{Tokenized, Tokens};

/// Tokens of a forward; bounds the memory of a batch of long texts.
pub(super) const TOKENS_AT_ONCE: usize = 32 * 1024;

/// Token ids of `texts`, by all threads when there are many.
pub(super) fn tokenize<T: AsRef<str> + Sync>(
    backend: &Backend,
    tokens: &Tokens,
    prompt: &str,
    texts: &[T],
    first: usize,
) -> Result<Vec<Tokenized>, Error> {
    /// Most texts of a piece of work, and pieces for each thread where there are fewer texts: a
    /// thread that comes late still finds some.
    const PIECE: usize = 16;
    const SHARES: usize = 3;
    let each = texts
        .len()
        .div_ceil(backend.threads() * SHARES)
        .clamp(1, PIECE);
    let one = |i: usize| tokens.encode_after(prompt, texts[i].as_ref(), first + i);
    let pieces: Vec<OnceLock<Vec<Result<Tokenized, Error>>>> = (0..texts.len().div_ceil(each))
        .map(|_| OnceLock::new())
        .collect();
    backend.for_each(pieces.len(), |piece| {
        let range = piece * each..((piece + 1) * each).min(texts.len());
        pieces[piece].get_or_init(|| range.map(one).collect());
    });
    pieces
        .into_iter()
        .flat_map(|piece| piece.into_inner().unwrap_or_default())
        .collect()
}

/// Some texts of a call, in one forward.
pub(super) struct Batch {
    /// The part of the call they belong to.
    pub(super) part: Arc<Part>,
    /// Their places in the part, in the order of the forward.
    pub(super) order: Vec<usize>,
}

/// Texts of a call that were tokenised together.
pub(super) struct Part {
    /// Place of the first in the call.
    pub(super) first: usize,
    pub(super) texts: Vec<Tokenized>,
}

impl Batch {
    pub(super) fn ragged(&self) -> Ragged {
        let mut ragged = Ragged::new();
        for &i in &self.order {
            ragged.push(&self.part.texts[i].ids);
        }
        ragged
    }
}

/// The places of texts, the longest first.
pub(super) fn in_order(texts: &[Tokenized]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(texts[i].ids.len()));
    order
}

/// Cuts a part into batches, the longest texts first so that neighbours are alike.
pub(super) fn batches(part: &Arc<Part>, backend: &Backend) -> Vec<Batch> {
    let most = TOKENS_AT_ONCE.min(backend.tokens_max());
    let length = |i: &usize| part.texts[*i].ids.len();
    // Batches of one size: a last one of a few texts would take nearly as long as a full one.
    let total: usize = (0..part.texts.len()).map(|i| length(&i)).sum();
    let full = total.div_ceil(total.div_ceil(most).max(1));
    let longest = (0..part.texts.len()).map(|i| length(&i)).max().unwrap_or(0);
    let full = (full + longest).min(most);
    let order = in_order(&part.texts);
    let mut batches: Vec<Batch> = Vec::new();
    let mut tokens = 0;
    for i in order {
        tokens += length(&i);
        match batches.last_mut().filter(|_| tokens <= full) {
            Some(batch) => batch.order.push(i),
            None => {
                tokens = length(&i);
                let (part, order) = (part.clone(), vec![i]);
                batches.push(Batch { part, order });
            }
        }
    }
    batches
}

/// Batches under way on a backend, in their order.
pub(super) struct Flow<'a> {
    backend: &'a Backend,
    under_way: VecDeque<(Batch, Result<Waiting, Error>)>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(backend: &'a Backend) -> Self {
        Self {
            backend,
            under_way: VecDeque::new(),
        }
    }

    /// Starts a batch.
    pub(super) fn push(&mut self, batch: Batch) {
        let submitted = self.backend.submit(&batch.ragged(), Share::Whole);
        self.under_way.push_back((batch, submitted));
    }

    /// Whether no further batch should be started before one is taken.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= self.backend.depth()
    }

    /// The vectors of the oldest batch, once they are there.
    pub(super) fn take(&mut self) -> Option<(Batch, Result<Vec<f32>, Error>)> {
        let (batch, submitted) = self.under_way.pop_front()?;
        Some((batch, submitted.and_then(Waiting::wait)))
    }
}

/// The vectors of texts on one backend, row after row in the order of the texts.
pub(super) fn encode(
    backend: &Backend,
    texts: Vec<Tokenized>,
    dim: usize,
) -> Result<Vec<f32>, Error> {
    let mut out = vec![0.0; texts.len() * dim];
    let mut flow = Flow::new(backend);
    let mut store = |flow: &mut Flow<'_>| -> Result<bool, Error> {
        let Some((batch, vectors)) = flow.take() else {
            return Ok(false);
        };
        for (&i, vector) in batch.order.iter().zip(vectors?.chunks_exact(dim)) {
            out[i * dim..][..dim].copy_from_slice(vector);
        }
        Ok(true)
    };
    for batch in batches(&Arc::new(Part { first: 0, texts }), backend) {
        if flow.is_full() {
            store(&mut flow)?;
        }
        flow.push(batch);
    }
    while store(&mut flow)? {}
    Ok(out)
}
