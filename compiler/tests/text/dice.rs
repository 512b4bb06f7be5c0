//! Random choices from one seed.

/// A generator of choices (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a closed range.
    pub fn from(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.from(0, 1) == 1
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.from(0, items.len() - 1)].clone()
    }

    pub fn some<T>(
        &mut self,
        low: usize,
        high: usize,
        mut item: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        (0..self.from(low, high)).map(|_| item(self)).collect()
    }

    /// Any finite number, often one whose digits are long.
    pub fn float(&mut self) -> f64 {
        let float = f64::from_bits(self.next());
        match self.from(0, 3) {
            0 => 1e-6,
            1 => self.from(0, 1000) as f64 / 7.0,
            _ if float.is_finite() => float,
            _ => -0.25,
        }
    }

    /// A name of a factor or a dimension.
    pub fn word(&mut self) -> String {
        let words = ["b", "txt", "t", "h", "w", "c", "n", "d", "qkv", "x_2", "_"];
        self.pick(&words).into()
    }

    /// Any text, for names that are quoted.
    pub fn text(&mut self) -> String {
        let parts = [
            "blocks.3", ".", "to_q", " ", "\"", "\\", "\n", "ä", ";", "u{41}", "}", "\t", "\u{85}",
        ];
        self.some(0, 5, |dice| dice.pick(&parts)).concat()
    }
}
