//! [`Replay`]: walks a log and makes the disks that a crash could leave behind.

use std::collections::BTreeSet;

use super::rng::Rng;
use super::tree::{Ino, NameOp, Op, Tree};

/// What a device writes whole or not at all.
const SECTOR: u64 = 512;

/// At how many borders one write is torn; a page of SQLite's covers nine at most.
const BORDERS_MAX: usize = 9;

/// Which bytes of one write a crash keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Those before this one.
    Head(usize),
    /// This one and those behind it.
    Tail(usize),
}

/// Which of the changes that were not yet stable a crash keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All: the process was killed, the machine went on.
    Kill,
    /// None.
    Synced,
    /// Only the pending change of this index.
    Only(usize),
    /// All but the pending change of this index.
    AllBut(usize),
    /// Each pending change whose bit is set, whole.
    Subset(u64),
    /// A part of the pending write of this index and all before it; of those behind it all or none.
    Torn {
        index: usize,
        part: Part,
        rest: bool,
    },
    /// Those that happened at this position of the log or later, and none before.
    Since(usize),
    /// Some, each whole, torn or lost, decided by this seed.
    Some(u64),
}

/// What becomes of one pending change.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Keep,
    Drop,
    /// Kept up to a byte, or from one on.
    Part(Part),
    /// Kept in parts: each sector by itself, decided by the seed.
    Tear {
        seed: u64,
        junk: bool,
    },
}

/// A walk along a log, with what is stable and what is pending at each step.
#[derive(Clone, Debug)]
pub(crate) struct Replay<'a> {
    log: &'a [Op],
    at: usize,
    live: Tree,
    stable: Tree,
    /// With their positions in the log.
    pending: Vec<(usize, &'a Op)>,
    seed: u64,
}

impl<'a> Replay<'a> {
    /// Starts at the beginning of `log`, on a disk that held `start`.
    pub(crate) fn new(start: Tree, log: &'a [Op]) -> Replay<'a> {
        Replay {
            log,
            at: 0,
            live: start.clone(),
            stable: start,
            pending: Vec::new(),
            seed: 1,
        }
    }

    /// Decides by `seed` what a failed sync still wrote; by seed 0 it wrote nothing.
    pub(crate) fn seeded(mut self, seed: u64) -> Replay<'a> {
        self.seed = seed;
        self
    }

    /// Where the walk is: the number of operations done.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// How many changes are not yet stable.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the next operation makes something stable, or there is none: as much is pending
    /// here as ever will be at once.
    pub(crate) fn is_full(&self) -> bool {
        let next = self.log.get(self.at);
        !matches!(
            next,
            Some(Op::Write { .. } | Op::SetLen { .. } | Op::Names(_))
        )
    }

    /// The places at which a crash may tear the pending change of this index, should it be a
    /// write: the borders of sectors, and at last a byte inside of one.
    pub(crate) fn tears(&self, index: usize) -> Vec<usize> {
        let Some((_, Op::Write { offset, bytes, .. })) = self.pending.get(index) else {
            return Vec::new();
        };
        let sector = SECTOR as usize;
        let first = sector - (*offset % SECTOR) as usize;
        let borders: Vec<usize> = (first..bytes.len()).step_by(sector).collect();
        // All borders of a page of SQLite's; of a longer write some that are evenly spread.
        let step = borders.len().div_ceil(BORDERS_MAX).max(1);
        let inside = (bytes.len() > 1).then_some((bytes.len() / 2) | 1);
        borders.into_iter().step_by(step).chain(inside).collect()
    }

    /// Walks on until `at` operations are done.
    pub(crate) fn walk_to(&mut self, at: usize) {
        while self.at < at.min(self.log.len()) {
            self.step();
        }
    }

    fn step(&mut self) {
        let op = &self.log[self.at];
        self.at += 1;
        self.live.apply(op);
        match op {
            Op::Write { .. } | Op::SetLen { .. } => self.pending.push((self.at - 1, op)),
            Op::Names(names) => {
                if let Some(born) = names.born {
                    self.stable.bear(born);
                }
                self.pending.push((self.at - 1, op));
            }
            Op::Sync { ino } => self.settle_file(*ino, |_| Fate::Keep),
            Op::SyncFailed { ino } => {
                let fate = self.fate_of_failed();
                self.settle_file(*ino, fate);
            }
            Op::SyncDir { dir } => self.settle_dir(*dir, |_| Fate::Keep),
            Op::SyncDirFailed { lost: false, .. } => {}
            Op::SyncDirFailed { dir, lost: true } => {
                let fate = self.fate_of_failed();
                self.settle_dir(*dir, fate);
            }
        }
    }

    /// What a failed sync at this position does to each change it should have kept.
    fn fate_of_failed(&self) -> impl FnMut(&Op) -> Fate + use<> {
        let mut rng = Rng::new(self.seed ^ self.at as u64);
        let none = self.seed == 0;
        move |_| if none { Fate::Drop } else { any_fate(&mut rng) }
    }

    /// Decides the pending changes of one file's data.
    fn settle_file(&mut self, ino: Ino, mut fate: impl FnMut(&Op) -> Fate) {
        let stable = &mut self.stable;
        self.pending.retain(|(_, op)| {
            let ours = data_of(op) == Some(ino);
            if ours {
                apply(stable, op, fate(op));
            }
            !ours
        });
    }

    /// Decides the pending entries of one folder, and with them every change they rest on.
    fn settle_dir(&mut self, dir: Ino, mut fate: impl FnMut(&Op) -> Fate) {
        let mut touched: BTreeSet<(Ino, &str)> = BTreeSet::new();
        let mut settled = vec![false; self.pending.len()];
        for (index, (_, op)) in self.pending.iter().enumerate().rev() {
            let Op::Names(NameOp { edits, .. }) = op else {
                continue;
            };
            let ours = |(ino, name): (Ino, &str)| ino == dir || touched.contains(&(ino, name));
            if edits.iter().any(|edit| ours((edit.dir, &edit.name))) {
                settled[index] = true;
                touched.extend(edits.iter().map(|edit| (edit.dir, edit.name.as_str())));
            }
        }
        let mut settled = settled.into_iter();
        let stable = &mut self.stable;
        self.pending.retain(|(_, op)| {
            let settled = settled.next() == Some(true);
            if settled {
                apply(stable, op, fate(op));
            }
            !settled
        });
    }

    /// The disk that a crash here leaves behind.
    pub(crate) fn image(&self, cut: Cut) -> Tree {
        if cut == Cut::Kill {
            return self.live.clone();
        }
        let mut tree = self.stable.clone();
        let mut dice = Dice::new(cut, self.at, self.pending.len());
        for (index, (at, op)) in self.pending.iter().enumerate() {
            apply(&mut tree, op, dice.fate(index, *at, op));
        }
        tree
    }

    /// The pending changes in words, for the message of a failed test.
    pub(crate) fn describe(&self, cut: Cut) -> String {
        let mut dice = Dice::new(cut, self.at, self.pending.len());
        let line = |(index, (at, op)): (usize, &(usize, &Op))| {
            let what = match op {
                Op::Write { ino, offset, bytes } => {
                    format!(
                        "write {} +{offset} {} bytes",
                        self.name_of(*ino),
                        bytes.len()
                    )
                }
                Op::SetLen { ino, len } => format!("set_len {} {len}", self.name_of(*ino)),
                Op::Names(names) => {
                    let edits = names.edits.iter().map(|edit| match edit.to {
                        Some(ino) => format!("{} = #{ino}", edit.name),
                        None => format!("{} gone", edit.name),
                    });
                    format!("{}: {}", names.what, edits.collect::<Vec<_>>().join(", "))
                }
                other => format!("{other:?}"),
            };
            format!("  {what}: {:?}", dice.fate(index, *at, op))
        };
        let lines: Vec<String> = self.pending.iter().enumerate().map(line).collect();
        format!(
            "crash after operation {} of {}, {cut:?}\npending:\n{}\nleft:\n{}",
            self.at,
            self.log.len(),
            lines.join("\n"),
            self.image(cut).describe()
        )
    }

    /// The last name a file was given.
    fn name_of(&self, ino: Ino) -> String {
        let edits = self.log.iter().filter_map(|op| match op {
            Op::Names(names) => Some(&names.edits),
            _ => None,
        });
        let named = edits.flatten().rfind(|edit| edit.to == Some(ino));
        named.map_or_else(
            || format!("#{ino}"),
            |edit| format!("{} (#{ino})", edit.name),
        )
    }
}

fn data_of(op: &Op) -> Option<Ino> {
    match op {
        Op::Write { ino, .. } | Op::SetLen { ino, .. } => Some(*ino),
        _ => None,
    }
}

/// The ways in which a crash chooses what it keeps.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// Each change by itself, this many of a hundred kept whole.
    Scatter { keep: u64, tear: u64 },
    /// In order up to here; what comes next is torn, the rest lost.
    Prefix { kept: usize },
    /// All names and no data, or the other way round.
    Apart { names: bool },
}

struct Dice {
    cut: Cut,
    style: Style,
    rng: Rng,
    junk: bool,
}

impl Dice {
    fn new(cut: Cut, at: usize, pending: usize) -> Dice {
        let seed = if let Cut::Some(seed) = cut { seed } else { 0 };
        let mut rng = Rng::new(seed ^ ((at as u64) << 20));
        let style = match rng.below(8) {
            0 | 1 => Style::Prefix {
                kept: rng.below(pending as u64 + 1) as usize,
            },
            2 => Style::Apart {
                names: rng.chance(50),
            },
            3 => Style::Scatter { keep: 10, tear: 20 },
            4 => Style::Scatter { keep: 80, tear: 15 },
            5 => Style::Scatter { keep: 0, tear: 100 },
            _ => Style::Scatter { keep: 45, tear: 20 },
        };
        let junk = rng.chance(30);
        Dice {
            cut,
            style,
            rng,
            junk,
        }
    }

    fn fate(&mut self, index: usize, at: usize, op: &Op) -> Fate {
        let whole = |keep| if keep { Fate::Keep } else { Fate::Drop };
        match self.cut {
            Cut::Kill => Fate::Keep,
            Cut::Synced => Fate::Drop,
            Cut::Only(only) => whole(index == only),
            Cut::AllBut(but) => whole(index != but),
            Cut::Subset(kept) => whole(kept >> index & 1 == 1),
            Cut::Torn {
                index: torn, part, ..
            } if index == torn => Fate::Part(part),
            Cut::Torn {
                index: torn, rest, ..
            } => whole(index < torn || rest),
            Cut::Since(since) => whole(at >= since),
            Cut::Some(_) => self.roll(index, op),
        }
    }

    fn roll(&mut self, index: usize, op: &Op) -> Fate {
        let tear = Fate::Tear {
            seed: self.rng.next(),
            junk: self.junk,
        };
        match self.style {
            Style::Prefix { kept } if index < kept => Fate::Keep,
            Style::Prefix { kept } if index == kept => tear,
            Style::Prefix { .. } => Fate::Drop,
            Style::Apart { names } if names == matches!(op, Op::Names(_)) => Fate::Keep,
            Style::Apart { .. } => Fate::Drop,
            Style::Scatter { keep, tear: torn } => match self.rng.below(100) {
                roll if roll < keep => Fate::Keep,
                roll if roll < keep + torn => tear,
                _ => Fate::Drop,
            },
        }
    }
}

fn any_fate(rng: &mut Rng) -> Fate {
    match rng.below(3) {
        0 => Fate::Keep,
        1 => Fate::Drop,
        _ => Fate::Tear {
            seed: rng.next(),
            junk: false,
        },
    }
}

fn apply(tree: &mut Tree, op: &Op, fate: Fate) {
    match (fate, op) {
        (Fate::Drop, _) => {}
        (Fate::Tear { seed, junk }, Op::Write { ino, offset, bytes }) => {
            tear(tree, *ino, *offset, bytes, &mut Rng::new(seed), junk);
        }
        (Fate::Part(Part::Head(end)), Op::Write { ino, offset, bytes }) => {
            tree.write(*ino, *offset, &bytes[..end]);
        }
        (Fate::Part(Part::Tail(start)), Op::Write { ino, offset, bytes }) => {
            tree.write(*ino, *offset + start as u64, &bytes[start..]);
        }
        // Lengths and names do not tear: half the time they are kept.
        (Fate::Tear { seed, .. }, _) if seed % 2 == 0 => {}
        _ => tree.apply(op),
    }
}

/// Writes some of the sectors that a write covers, junk into some others.
///
/// A sector that already holds what is written keeps it: whoever adds to a sector, as every log
/// does, rests on what was there before.
fn tear(tree: &mut Tree, ino: Ino, offset: u64, bytes: &[u8], rng: &mut Rng, junk: bool) {
    let end = offset + bytes.len() as u64;
    let Ok(file) = tree.file(ino) else { return };
    if rng.chance(50) && (file.len() as u64) < end {
        // The new length came through before the bytes did.
        tree.set_len(ino, end);
    }
    let mut at = offset;
    while at < end {
        let next = (at / SECTOR * SECTOR + SECTOR).min(end);
        let sector = &bytes[(at - offset) as usize..(next - offset) as usize];
        let same = holds(tree, ino, at, sector);
        if rng.chance(50) {
            tree.write(ino, at, sector);
        } else if junk && !same && rng.chance(30) {
            let mut noise = vec![0; sector.len()];
            rng.fill(&mut noise);
            tree.write(ino, at, &noise);
        }
        at = next;
    }
}

fn holds(tree: &Tree, ino: Ino, offset: u64, bytes: &[u8]) -> bool {
    let start = offset as usize;
    let file = tree.file(ino).ok();
    file.and_then(|file| file.get(start..start + bytes.len())) == Some(bytes)
}
