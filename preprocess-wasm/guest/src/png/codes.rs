//! The prefix codes of deflate (RFC 1951, 3.2), with the next bits of the stream looked up at once.

/// The longest code.
const MAX_BITS: usize = 15;

/// A set of codes, whose table has `SIZE` entries: two to the power of the bits that are looked up at once.
///
/// An entry has the number of bits to consume in its lowest byte, zero for what is not looked up here; what else it says
/// is its user's.
pub(super) struct Codes<const SIZE: usize> {
    table: Box<[u32; SIZE]>,
    /// What a symbol means, without its bits.
    meaning: fn(usize) -> u32,
    /// For each length: the first code that is longer, in the highest of 15 bits.
    limit: [u32; MAX_BITS + 1],
    /// For each length: what is added to a code to find its symbol's place.
    offset: [i32; MAX_BITS + 1],
    /// Symbols in the order of their codes.
    symbols: [u16; 288],
}

impl<const SIZE: usize> Codes<SIZE> {
    const BITS: usize = SIZE.ilog2() as usize;

    pub(super) fn new(meaning: fn(usize) -> u32) -> Self {
        let zeros = vec![0; SIZE].into_boxed_slice();
        let table = zeros.try_into().unwrap_or_else(|_| unreachable!("it has this size"));
        Self { table, meaning, limit: [0; 16], offset: [0; 16], symbols: [0; 288] }
    }

    /// Makes these the codes whose lengths are given, up to 15, by symbol. `None` if they are too many or too few for their
    /// lengths. If `is_sparse`, there may be one of length 1, or none.
    pub(super) fn set(&mut self, lengths: &[u8], is_sparse: bool) -> Option<()> {
        let mut counts = [0_u32; MAX_BITS + 1];
        for &length in lengths {
            counts[usize::from(length & 15)] += 1;
        }
        counts[0] = 0;
        let total: u32 = counts.iter().sum();
        let (mut code, mut place) = (0_u32, 0_u32);
        let mut places = [0_u32; MAX_BITS + 1];
        for length in 1..=MAX_BITS {
            self.offset[length] = place as i32 - code as i32;
            places[length] = place;
            code += counts[length];
            place += counts[length];
            self.limit[length] = code << (MAX_BITS - length);
            code <<= 1;
        }
        let is_complete = code == 2 << MAX_BITS;
        if !is_complete && !(is_sparse && (total == 0 || total == 1 && counts[1] == 1)) {
            return None;
        }
        for (symbol, &length) in lengths.iter().enumerate() {
            if length != 0 {
                let place = &mut places[usize::from(length & 15)];
                *self.symbols.get_mut(*place as usize)? = symbol as u16;
                *place += 1;
            }
        }
        self.fill(&counts);
        Some(())
    }

    /// The table, made for codes of one bit and then doubled for each bit more.
    fn fill(&mut self, counts: &[u32; MAX_BITS + 1]) {
        self.table[..2].fill(0);
        let (mut code, mut place) = (0_u32, 0);
        for (length, &count) in counts.iter().enumerate().take(Self::BITS + 1).skip(1) {
            for _ in 0..count {
                let at = (code.reverse_bits() >> (32 - length)) as usize;
                self.table[at & (SIZE - 1)] = self.entry(place) | length as u32;
                code += 1;
                place += 1;
            }
            code <<= 1;
            let size = 1 << length;
            if size < SIZE {
                self.table.copy_within(..size, size);
            }
        }
    }

    fn entry(&self, place: usize) -> u32 {
        (self.meaning)(usize::from(self.symbols[place]))
    }

    /// Lets `join` change each entry, given it, the bits behind its own, and the table of entries that are not changed yet.
    pub(super) fn join(&mut self, join: impl Fn(u32, &[u32; SIZE], usize) -> u32) {
        // From the last one on: what is behind a code's bits is a smaller number.
        for at in (0..SIZE).rev() {
            let entry = self.table[at];
            self.table[at] = join(entry, &self.table, at >> (entry & 15));
        }
    }

    /// What the next bits of the stream mean, the first one lowest. Zero: no code.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> u32 {
        self.table[bits as usize & (SIZE - 1)]
    }

    /// The same for codes that the table does not have.
    #[cold]
    #[inline(never)]
    pub(super) fn look_up_long(&self, bits: u64) -> Option<u32> {
        let code = (bits as u32).reverse_bits() >> (32 - MAX_BITS);
        let length = (Self::BITS + 1..=MAX_BITS).find(|&length| code < self.limit[length])?;
        let place = (code >> (MAX_BITS - length)) as i32 + self.offset[length];
        let symbol = *self.symbols.get(usize::try_from(place).ok()?)?;
        Some((self.meaning)(usize::from(symbol)) | length as u32)
    }
}
