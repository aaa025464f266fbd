//! What stands before the entropy-coded data of a baseline JPEG (ITU T.81, annex B).

use super::huffman::Huffman;

/// A JPEG of one scan in which all components are interleaved, of 8 bits, coded by Huffman.
pub(super) struct Frame<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// MCUs between restart markers; 0: none.
    pub(super) restart: usize,
    /// Tables for the first coefficient and the others, by number.
    pub(super) dc: [Option<Huffman>; 4],
    pub(super) ac: [Option<Huffman>; 4],
    /// The entropy-coded data, and all that follows.
    pub(super) data: &'a [u8],
}

/// One of a frame's components.
pub(super) struct Component {
    id: u8,
    /// Blocks of an MCU beside each other, and above each other.
    pub(super) horizontal: usize,
    pub(super) vertical: usize,
    quantization: usize,
    /// Quantisation table, in the file's order.
    pub(super) steps: [u16; 64],
    /// Numbers of its Huffman tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

impl<'a> Frame<'a> {
    /// Reads up to the first scan. `None` if that is not all there is, or is of another kind, or damaged.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut frame = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            restart: 0,
            dc: Default::default(),
            ac: Default::default(),
            data: &[],
        };
        let mut quantization = [None; 4];
        let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
        loop {
            let [0xff, marker, after @ ..] = rest else { return None };
            if *marker == 0xff {
                rest = &rest[1..];
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
            let segment = after.get(2..length)?;
            rest = after.get(length..)?;
            match marker {
                0xdb => read_quantization(segment, &mut quantization)?,
                0xc4 => frame.read_huffman(segment)?,
                0xdd => frame.restart = usize::from(u16::from_be_bytes(*segment.first_chunk()?)),
                // Baseline, and extended sequential, which is the same for 8 bits.
                0xc0 | 0xc1 if frame.components.is_empty() => frame.read_components(segment)?,
                0xda => {
                    frame.read_scan(segment)?;
                    for component in &mut frame.components {
                        component.steps = quantization[component.quantization]?;
                    }
                    frame.data = rest;
                    return Some(frame);
                }
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
    }

    /// Identifiers of the components.
    pub(super) fn ids(&self) -> impl Iterator<Item = u8> {
        self.components.iter().map(|component| component.id)
    }

    /// Blocks of an MCU beside each other and above each other, of the component that has most.
    pub(super) fn most(&self) -> (usize, usize) {
        let most = |of: fn(&Component) -> usize| self.components.iter().map(of).max().unwrap_or(1);
        (most(|c| c.horizontal), most(|c| c.vertical))
    }

    fn read_components(&mut self, segment: &[u8]) -> Option<()> {
        let [8, h1, h0, w1, w0, count, components @ ..] = segment else { return None };
        self.width = usize::from(u16::from_be_bytes([*w1, *w0]));
        self.height = usize::from(u16::from_be_bytes([*h1, *h0]));
        let (components, []) = components.as_chunks::<3>() else { return None };
        if self.width == 0
            || self.height == 0
            || components.len() != usize::from(*count)
            || !matches!(count, 1 | 3)
        {
            return None;
        }
        for &[id, sampling, quantization] in components {
            let (horizontal, vertical) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) || quantization > 3 {
                return None;
            }
            // A single component is not interleaved: its MCU is one block, whatever it says.
            let alone = components.len() == 1;
            self.components.push(Component {
                id,
                horizontal: if alone { 1 } else { horizontal },
                vertical: if alone { 1 } else { vertical },
                quantization: usize::from(quantization),
                steps: [0; 64],
                dc: 0,
                ac: 0,
            });
        }
        // An MCU has ten blocks at most. Samples of which no whole number lies along another component's are refused by
        // other decoders, so here too.
        let blocks: usize = self.components.iter().map(|c| c.horizontal * c.vertical).sum();
        let (horizontal, vertical) = self.most();
        let is_whole = |c: &Component| horizontal % c.horizontal == 0 && vertical % c.vertical == 0;
        (blocks <= 10 && self.components.iter().all(is_whole)).then_some(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, after @ ..] = segment {
            let counts: &[u8; 16] = after.first_chunk()?;
            let codes: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = after.get(16..16 + codes)?;
            // Of first coefficients they are sizes, of 8-bit images up to 11.
            if kind >> 4 == 0 && symbols.iter().any(|&size| size > 11) {
                return None;
            }
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(kind & 15)).filter(|_| kind >> 4 < 2)? =
                Some(Huffman::new(counts, symbols)?);
            segment = &after[16 + codes..];
        }
        Some(())
    }

    fn read_scan(&mut self, segment: &[u8]) -> Option<()> {
        let [count, rest @ ..] = segment else { return None };
        let (selectors, after) = rest.split_at_checked(2 * usize::from(*count))?;
        if usize::from(*count) != self.components.len() || after != [0, 63, 0] {
            return None;
        }
        for (component, selector) in self.components.iter_mut().zip(selectors.as_chunks::<2>().0) {
            if component.id != selector[0] {
                return None;
            }
            (component.dc, component.ac) = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            self.dc.get(component.dc)?.as_ref()?;
            self.ac.get(component.ac)?.as_ref()?;
        }
        Some(())
    }
}

fn read_quantization(mut segment: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let [kind, after @ ..] = segment {
        let table = tables.get_mut(usize::from(kind & 15))?;
        let mut steps = [0; 64];
        match kind >> 4 {
            0 => {
                let bytes: &[u8; 64] = after.first_chunk()?;
                steps = bytes.map(u16::from);
                segment = &after[64..];
            }
            1 => {
                let bytes: &[u8; 128] = after.first_chunk()?;
                for (step, pair) in steps.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *step = u16::from_be_bytes(*pair);
                }
                segment = &after[128..];
            }
            _ => return None,
        }
        if steps.contains(&0) {
            return None;
        }
        *table = Some(steps);
    }
    Some(())
}
