//! A small generator of numbers, the same everywhere (SplitMix64).

/// Where the numbers come from.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// So many characters of an alphabet.
    pub fn chars(&mut self, n: usize, alphabet: &str) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..n).map(|_| self.pick(&alphabet)).collect()
    }

    pub fn digits(&mut self, n: usize) -> String {
        self.chars(n, DIGITS)
    }

    pub fn hex(&mut self, n: usize) -> String {
        self.chars(n, "0123456789abcdef")
    }

    pub fn alnum(&mut self, n: usize) -> String {
        self.chars(n, &[UPPER, LOWER, DIGITS].concat())
    }

    pub fn base64(&mut self, n: usize) -> String {
        self.chars(n, &[UPPER, LOWER, DIGITS, "+/"].concat())
    }

    pub fn base64url(&mut self, n: usize) -> String {
        self.chars(n, &[UPPER, LOWER, DIGITS, "-_"].concat())
    }
}

pub const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
pub const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
pub const DIGITS: &str = "0123456789";
