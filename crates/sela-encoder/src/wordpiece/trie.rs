//! The pieces of a vocabulary as a trie with failure links: a word falls into its longest pieces in
//! one pass over its bytes.
//!
//! The algorithm is LinMaxMatch (X. Song, A. Salcianu, Y. Song, D. Dopson, D. Zhou, "Fast WordPiece
//! Tokenization", EMNLP 2021). Where the next byte leads nowhere, a node's link says which pieces
//! are certain by now and in which node the bytes after them end; no byte is read twice.

/// The node where words begin.
const WORD: u32 = 0;
/// The node where what follows a piece begins.
const REST: u32 = 1;
/// No node.
const NONE: u32 = u32::MAX;

/// What a vocabulary holds, ready to split words.
pub(super) struct Trie {
    /// Children of the n-th node are the nodes from `first[n]` up to `first[n + 1]`.
    first: Vec<u32>,
    /// The byte that leads to a node.
    label: Vec<u8>,
    links: Vec<Link>,
    /// Pieces of all links, one link's after another's.
    pieces: Vec<u32>,
}

/// Where a node whose bytes do not go on continues.
#[derive(Clone, Copy)]
struct Link {
    to: u32,
    pieces_from: u32,
    pieces_to: u32,
}

/// A node that waits for its children: those of the pieces `from..to` begin with its bytes.
struct Open {
    from: usize,
    to: usize,
    depth: usize,
    parent: u32,
    /// The piece that ends here.
    piece: Option<u32>,
}

impl Trie {
    /// The trie of pieces that begin words and pieces that go on in them, each once and not empty,
    /// with their ids.
    pub(super) fn new<'a>(
        mut words: Vec<(&'a [u8], u32)>,
        mut rests: Vec<(&'a [u8], u32)>,
    ) -> Self {
        words.sort_unstable();
        rests.sort_unstable();
        let border = words.len();
        let mut sorted = words;
        sorted.append(&mut rests);
        let root = |from, to| Open {
            from,
            to,
            depth: 0,
            parent: NONE,
            piece: None,
        };
        let mut nodes = vec![root(0, border), root(border, sorted.len())];
        let mut trie = Self {
            first: Vec::new(),
            label: vec![0, 0],
            links: Vec::new(),
            pieces: Vec::new(),
        };
        // Level by level, so that siblings are neighbours and links lead to smaller numbers.
        let mut at = 0;
        while at < nodes.len() {
            trie.first.push(nodes.len() as u32);
            let Open {
                mut from,
                to,
                depth,
                ..
            } = nodes[at];
            if from < to && sorted[from].0.len() == depth {
                nodes[at].piece = Some(sorted[from].1);
                from += 1;
            }
            while from < to {
                let byte = sorted[from].0[depth];
                let end = from + sorted[from..to].partition_point(|(p, _)| p[depth] == byte);
                trie.label.push(byte);
                nodes.push(Open {
                    from,
                    to: end,
                    depth: depth + 1,
                    parent: at as u32,
                    piece: None,
                });
                from = end;
            }
            at += 1;
        }
        trie.first.push(nodes.len() as u32);
        trie.link(&nodes);
        trie
    }

    /// Sets the links of all nodes, parents first.
    fn link(&mut self, nodes: &[Open]) {
        for (n, node) in nodes.iter().enumerate() {
            let from = self.pieces.len();
            let to = if n as u32 <= REST {
                NONE
            } else if let Some(piece) = node.piece {
                self.pieces.push(piece);
                REST
            } else {
                // As the parent would fall back, then onwards by the byte that led here.
                let mut back = self.fall(node.parent as usize);
                loop {
                    if back == NONE {
                        break NONE;
                    }
                    match self.child(back, self.label[n]) {
                        Some(child) => break child,
                        None => back = self.fall(back as usize),
                    }
                }
            };
            if to == NONE {
                self.pieces.truncate(from);
            }
            self.links.push(Link {
                to,
                pieces_from: from as u32,
                pieces_to: self.pieces.len() as u32,
            });
        }
    }

    /// Adds the pieces of a node's link to the newest link's and returns where it leads.
    fn fall(&mut self, node: usize) -> u32 {
        let link = self.links[node];
        self.pieces
            .extend_from_within(link.pieces_from as usize..link.pieces_to as usize);
        link.to
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let (from, to) = (
            self.first[node as usize] as usize,
            self.first[node as usize + 1] as usize,
        );
        let labels = &self.label[from..to];
        // Nearly all nodes have a handful of children; the two roots have hundreds.
        let place = if labels.len() > 16 {
            labels.binary_search(&byte).ok()
        } else {
            labels.iter().position(|&label| label == byte)
        };
        place.map(|place| (from + place) as u32)
    }

    /// Adds the ids of the longest pieces of `word`, from its begin on; false, and nothing added,
    /// when there are none.
    pub(super) fn split(&self, word: &[u8], ids: &mut Vec<u32>) -> bool {
        let before = ids.len();
        let mut node = WORD;
        let mut fall = |node: &mut u32| {
            let link = self.links[*node as usize];
            let pieces = &self.pieces[link.pieces_from as usize..link.pieces_to as usize];
            ids.extend_from_slice(pieces);
            *node = link.to;
            link.to != NONE
        };
        let mut whole = true;
        'word: for &byte in word {
            loop {
                if let Some(child) = self.child(node, byte) {
                    node = child;
                    break;
                }
                if !fall(&mut node) {
                    whole = false;
                    break 'word;
                }
            }
        }
        // The end of the word is a byte that leads nowhere; all is split when nothing is left.
        while whole && node > REST {
            whole = fall(&mut node);
        }
        if !whole {
            ids.truncate(before);
        }
        whole
    }
}
