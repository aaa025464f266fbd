//! Which samples, with which weights, make a sample of the target.

use super::Span;
use super::pass::LANES;
use crate::resize::Filter;

/// Bits of a weight after the point.
pub(super) const WEIGHT_BITS: u32 = 14;

/// The windows of all samples of a target along one side.
pub(super) struct Axis {
    /// First sample of each window.
    starts: Vec<usize>,
    /// End of the samples with a weight.
    ends: Vec<usize>,
    /// As many weights for each as the widest window has, rounded up; the rest are zero.
    weights: Vec<i16>,
    taps: usize,
}

impl Axis {
    /// Windows whose weights are padded with zeros to a multiple of `multiple`, and as many windows as are a multiple
    /// of [`LANES`].
    ///
    /// The windows are Pillow's: the filter's support grows with the scale when it shrinks; at the edges what lies
    /// outside is left out.
    pub(super) fn new(span: Span, filter: Filter, multiple: usize) -> Self {
        let scale = span.length / span.target as f64;
        let widened = scale.max(1.0);
        let reach = support(filter) * widened;
        let taps = ((reach.ceil() as usize) * 2 + 1).min(span.samples).next_multiple_of(multiple);
        let count = span.target.next_multiple_of(LANES);
        let mut axis =
            Self { starts: vec![0; count], ends: vec![0; count], weights: vec![0; count * taps], taps };
        let mut exact = Vec::with_capacity(taps);
        for at in 0..span.target {
            let center = span.from + (at as f64 + 0.5) * scale;
            let start = ((center - reach + 0.5).max(0.0) as usize).min(span.samples - 1);
            let end = ((center + reach + 0.5) as usize).clamp(start + 1, (start + taps).min(span.samples));
            exact.clear();
            exact.extend((start..end).map(|n| weight(filter, (n as f64 - center + 0.5) / widened)));
            // Where weights are padded, the padding must not reach beyond the row.
            let first = if multiple > 1 { start.min(span.samples.saturating_sub(taps)) } else { start };
            axis.starts[at] = first;
            axis.ends[at] = end;
            quantize(&exact, &mut axis.weights[at * taps + start - first..(at + 1) * taps]);
        }
        axis
    }

    pub(super) fn taps(&self) -> usize {
        self.taps
    }

    pub(super) fn start(&self, at: usize) -> usize {
        self.starts[at]
    }

    pub(super) fn end(&self, at: usize) -> usize {
        self.ends[at]
    }

    /// First sample of a window, and the weights of all that have one.
    pub(super) fn window(&self, at: usize) -> (usize, &[i16]) {
        let count = self.ends[at] - self.starts[at];
        (self.starts[at], &self.weights[at * self.taps..][..count])
    }

    /// First samples of all windows, and their weights.
    pub(super) fn windows(&self) -> (&[usize], &[i16]) {
        (&self.starts, &self.weights)
    }
}

/// Whole numbers in the weights' proportions whose sum is exactly one, so that a plane of one colour keeps it.
fn quantize(exact: &[f64], weights: &mut [i16]) {
    let one = f64::from(1 << WEIGHT_BITS);
    let sum: f64 = exact.iter().sum();
    let mut missing = 1 << WEIGHT_BITS;
    let mut largest = 0;
    for (at, value) in exact.iter().enumerate() {
        let quantized = (value / sum * one).round() as i16;
        weights[at] = quantized;
        missing -= i32::from(quantized);
        if quantized > weights[largest] {
            largest = at;
        }
    }
    weights[largest] = (i32::from(weights[largest]) + missing) as i16;
}

/// How far a filter reaches, in samples.
fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest => 0.5,
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos3 => 3.0,
    }
}

fn weight(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        Filter::Nearest => f64::from(u8::from(x <= 0.5)),
        Filter::Bilinear => (1.0 - x).max(0.0),
        // Keys, "Cubic convolution interpolation", 1981, with a = -0.5.
        Filter::Bicubic => match x {
            0.0..1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            1.0..2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        },
        Filter::Lanczos3 if x < 3.0 => sinc(x) * sinc(x / 3.0),
        Filter::Lanczos3 => 0.0,
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}
