//! What everything else speaks of: rows, pauses, verdicts, and the rules by which a rate settles. It knows no file, no VM and
//! no thread.

mod exits;
mod probed;
mod sample;
mod settling;
mod shard;
mod spread;
mod stall;
mod summary;
mod verdict;

pub use self::{
    exits::{ExitRow, ExitSource},
    probed::{KernelCounts, Probed},
    sample::Sample,
    settling::{LawFacts, Rules},
    shard::{Shard, ShardError},
    spread::Spread,
    stall::{KernelStall, Stall},
    summary::Summary,
    verdict::{Moves, Verdict},
};
