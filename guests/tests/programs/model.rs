//! What the random programs should do, written a second time.

/// Marsaglia's xorshift64, triple 13, 7, 17.
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Picks one of `pages` by the high bits of a number.
pub(crate) fn pick(number: u64, pages: u64) -> u64 {
    ((u128::from(number) * u128::from(pages)) >> 64) as u64
}

/// How far `counts` are from equal: Pearson's chi-square over its degrees of freedom, near 1 for a uniform sequence.
pub(crate) fn unevenness(counts: &[u64]) -> f64 {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let chi_square: f64 = counts.iter().map(|&n| (n as f64 - mean).powi(2) / mean).sum();
    chi_square / (counts.len() - 1) as f64
}
