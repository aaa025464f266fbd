//! Writes baseline JPEGs of any sampling, straight from made-up coefficients: encoders write but a few kinds.

/// What is written.
pub(super) struct Writer {
    pub(super) size: (u16, u16),
    /// Horizontal and vertical sampling factors of each component.
    pub(super) sampling: Vec<(u8, u8)>,
    /// MCUs between restart markers; 0: none.
    pub(super) restart: u16,
    /// Quantisation steps are this one.
    pub(super) step: u8,
    pub(super) seed: u32,
}

/// Codes of each length: of 8 and of 16 bits alone, or one of each of the shorter lengths.
const COUNTS: [[u8; 16]; 2] = [
    [0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 128],
    [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 242],
];

/// Code and its length, of each symbol.
type Codes = [(u32, u32); 256];

/// The codes of symbols (ITU T.81, annex C).
fn codes(counts: &[u8; 16], symbols: &[u8]) -> Codes {
    let mut codes = [(0, 0); 256];
    let mut symbols = symbols.iter();
    let mut code = 0;
    for (length, count) in (1..).zip(counts) {
        for symbol in symbols.by_ref().take(usize::from(*count)) {
            codes[usize::from(*symbol)] = (code, length);
            code += 1;
        }
        code <<= 1;
    }
    codes
}

impl Writer {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        segment(&mut bytes, 0xdb, &[&[0][..], &[self.step; 64]].concat());
        let (width, height) = self.size;
        let mut frame = vec![8];
        frame.extend(height.to_be_bytes().iter().chain(&width.to_be_bytes()));
        frame.push(self.sampling.len() as u8);
        for (at, (horizontal, vertical)) in self.sampling.iter().enumerate() {
            frame.extend([at as u8 + 1, horizontal << 4 | vertical, 0]);
        }
        segment(&mut bytes, 0xc0, &frame);
        let counts = &COUNTS[self.seed as usize % COUNTS.len()];
        // In an order that no table of an encoder has.
        let symbols: Vec<u8> =
            (0..=255_u8).map(|at| at.wrapping_mul(37).wrapping_add(self.seed as u8)).collect();
        // Those of first coefficients have sizes of up to 11 alone.
        let sizes: Vec<u8> = symbols.iter().copied().filter(|&symbol| symbol <= 11).collect();
        let size_counts = [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        segment(&mut bytes, 0xc4, &[&[0x00][..], &size_counts, &sizes].concat());
        segment(&mut bytes, 0xc4, &[&[0x10][..], counts, &symbols].concat());
        if self.restart > 0 {
            segment(&mut bytes, 0xdd, &self.restart.to_be_bytes());
        }
        let mut scan = vec![self.sampling.len() as u8];
        scan.extend((1..=self.sampling.len() as u8).flat_map(|id| [id, 0]));
        scan.extend([0, 63, 0]);
        segment(&mut bytes, 0xda, &scan);
        self.write_data(&mut bytes, codes(&size_counts, &sizes), codes(counts, &symbols));
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    fn write_data(&self, bytes: &mut Vec<u8>, first: Codes, others: Codes) {
        let alone = self.sampling.len() == 1;
        let sampling = |of: fn(&(u8, u8)) -> u8| self.sampling.iter().map(of).max().unwrap_or(1);
        let (most_x, most_y) = if alone { (1, 1) } else { (sampling(|s| s.0), sampling(|s| s.1)) };
        let columns = u32::from(self.size.0).div_ceil(8 * u32::from(most_x));
        let lines = u32::from(self.size.1).div_ceil(8 * u32::from(most_y));
        let mut random = Random(self.seed);
        let mut out = Out { bytes, buffer: 0, filled: 0 };
        let mut previous = vec![0; self.sampling.len()];
        for mcu in 0..columns * lines {
            if self.restart > 0 && mcu > 0 && mcu % u32::from(self.restart) == 0 {
                out.flush();
                let number = mcu / u32::from(self.restart) - 1;
                out.bytes.extend([0xff, 0xd0 + (number % 8) as u8]);
                previous.fill(0);
            }
            for (component, (horizontal, vertical)) in self.sampling.iter().enumerate() {
                let blocks = if alone { 1 } else { horizontal * vertical };
                for _ in 0..blocks {
                    let level = random.below(257) as i32 - 128;
                    out.number(&first, 0, level - previous[component]);
                    previous[component] = level;
                    out.rest_of_block(&others, &mut random);
                }
            }
        }
        out.flush();
    }
}

fn segment(bytes: &mut Vec<u8>, marker: u8, content: &[u8]) {
    bytes.extend([0xff, marker]);
    bytes.extend((content.len() as u16 + 2).to_be_bytes());
    bytes.extend(content);
}

/// Entropy-coded data.
struct Out<'a> {
    bytes: &'a mut Vec<u8>,
    buffer: u64,
    filled: u32,
}

impl Out<'_> {
    fn bits(&mut self, value: u32, count: u32) {
        self.buffer = self.buffer << count | u64::from(value) & ((1 << count) - 1);
        self.filled += count;
        while self.filled >= 8 {
            self.filled -= 8;
            let byte = (self.buffer >> self.filled) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
    }

    fn symbol(&mut self, codes: &Codes, symbol: u8) {
        let (code, length) = codes[usize::from(symbol)];
        self.bits(code, length);
    }

    /// A run of zeros and a number behind it.
    fn number(&mut self, codes: &Codes, run: u8, value: i32) {
        let size = 32 - value.unsigned_abs().leading_zeros();
        self.symbol(codes, run << 4 | size as u8);
        if size > 0 {
            self.bits(if value < 0 { value - 1 } else { value } as u32, size);
        }
    }

    /// Numbers that are no louder than an image's.
    fn rest_of_block(&mut self, codes: &Codes, random: &mut Random) {
        let mut at = 1;
        // Some blocks are empty, some full.
        let until = random.below(3) * random.below(33);
        while at < until.min(64) {
            let run = (random.below(20).saturating_sub(4)).min(63 - at);
            if run == 16 {
                continue;
            }
            let value = random.below(41) as i32 - 20;
            if value == 0 {
                if at + 16 <= 63 {
                    self.symbol(codes, 0xf0);
                    at += 16;
                }
                continue;
            }
            self.number(codes, run as u8, value);
            at += run + 1;
        }
        if at < 64 {
            self.symbol(codes, 0);
        }
    }

    fn flush(&mut self) {
        let free = (8 - self.filled % 8) % 8;
        self.bits((1 << free) - 1, free);
    }
}

/// Knuth's generator, MMIX's little sister.
pub(super) struct Random(pub(super) u32);

impl Random {
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0) * u64::from(end)) >> 32) as u32
    }
}
