//! The elements of a tensor as JSON: read into bytes, and written from them.
//!
//! Elements are read with the exact rules of their type, straight from the text into the tensor's bytes: no tree of
//! values is built, which would take many times the memory of a large request.

use crate::tensor::{DataType, Shape, Tensor, byte_string_ends};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::borrow::Cow;
use std::str::FromStr;

/// Reads `json`, the valid JSON text of a tensor's `data`: an array of its elements, or arrays in arrays exactly as
/// its shape says.
///
/// # Errors
/// With what is wrong, as a clause that follows the tensor's name and has no full stop at its end.
pub(super) fn read(json: &str, datatype: DataType, shape: &Shape) -> Result<Bytes, String> {
    let count =
        shape.element_count().ok_or_else(|| format!("has the shape {shape}, which no tensor can have"))?;
    // An element has a character at least, and a comma before the next. What is too short is not made room for.
    if count > json.len() / 2 {
        return Err(format!("has less data than its shape {shape} says"));
    }
    let bytes = count.checked_mul(datatype.byte_size().unwrap_or(size_of::<u32>()));
    let mut elements = Elements {
        datatype,
        data: BytesMut::with_capacity(
            bytes.ok_or_else(|| format!("has the shape {shape}, which is too large"))?,
        ),
        left: count,
    };
    let mut nesting = Nesting { shape, counts: Vec::new(), form: None };
    let mut rest = json.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => after,
            b'[' => {
                nesting.open()?;
                after
            }
            b']' => {
                nesting.close()?;
                after
            }
            _ => {
                let (token, after) = rest.split_at(token_length(rest));
                nesting.element()?;
                // Tokens end at ASCII characters, so they are whole text.
                elements.push(std::str::from_utf8(token).unwrap_or_default())?;
                after
            }
        };
    }
    if elements.left > 0 {
        return Err(format!("has {} elements, its shape {shape} has {count}", count - elements.left));
    }
    Ok(elements.data.freeze())
}

/// Bytes at most of what [`read`] makes of the same.
pub(super) fn room(json: &str, datatype: DataType, shape: &Shape) -> usize {
    // What has more elements than the text can have is refused before anything is made of it.
    let count = shape.element_count().unwrap_or(0).min(json.len() / 2);
    match datatype.byte_size() {
        Some(size) => count * size,
        // Each with its length; a text is never longer than it is in JSON.
        None => count * size_of::<u32>() + json.len(),
    }
}

/// Length of the string, number or word at the beginning of valid JSON text; at least 1.
fn token_length(text: &[u8]) -> usize {
    if text[0] == b'"' {
        let mut at = 1;
        while let Some(&byte) = text.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        return text.len();
    }
    let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'[' | b']' | b'"');
    text.iter().position(ends).unwrap_or(text.len()).max(1)
}

/// Whether the arrays are one flat list, or nest as the shape does.
struct Nesting<'a> {
    shape: &'a Shape,
    /// What each open array holds so far, outermost first.
    counts: Vec<i64>,
    form: Option<Form>,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Flat,
    Nested,
}

impl Nesting<'_> {
    fn open(&mut self) -> Result<(), String> {
        self.count();
        self.counts.push(0);
        match self.counts.len() {
            1 => Ok(()),
            depth if depth > self.shape.len() => Err(self.misfit()),
            _ => self.is(Form::Nested),
        }
    }

    fn close(&mut self) -> Result<(), String> {
        let depth = self.counts.len();
        let held = self.counts.pop();
        if self.form == Some(Form::Nested) && held != self.shape.get(depth.saturating_sub(1)).copied() {
            return Err(self.misfit());
        }
        Ok(())
    }

    fn element(&mut self) -> Result<(), String> {
        self.count();
        match self.counts.len() {
            0 => Err("has `data` that is no array".to_owned()),
            // Of a shape with one dimension both forms are the same.
            1 if self.shape.len() <= 1 => Ok(()),
            1 => self.is(Form::Flat),
            depth if depth == self.shape.len() => Ok(()),
            _ => Err(self.misfit()),
        }
    }

    fn count(&mut self) {
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
    }

    fn is(&mut self, form: Form) -> Result<(), String> {
        match self.form.replace(form) {
            Some(other) if other != form => Err(self.misfit()),
            _ => Ok(()),
        }
    }

    fn misfit(&self) -> String {
        format!("has `data` that is neither a flat list nor nested as its shape {} says", self.shape)
    }
}

/// The elements read so far.
struct Elements {
    datatype: DataType,
    data: BytesMut,
    left: usize,
}

impl Elements {
    fn push(&mut self, token: &str) -> Result<(), String> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err("has more elements than its shape says".to_owned());
        };
        self.left = left;
        match self.datatype {
            DataType::Bool => match token {
                "true" => self.data.put_u8(1),
                "false" => self.data.put_u8(0),
                _ => return Err(self.wrong(token)),
            },
            DataType::Uint8 => self.data.put_u8(self.number(token)?),
            DataType::Uint16 => self.data.put_u16_le(self.number(token)?),
            DataType::Uint32 => self.data.put_u32_le(self.number(token)?),
            DataType::Uint64 => self.data.put_u64_le(self.number(token)?),
            DataType::Int8 => self.data.put_i8(self.number(token)?),
            DataType::Int16 => self.data.put_i16_le(self.number(token)?),
            DataType::Int32 => self.data.put_i32_le(self.number(token)?),
            DataType::Int64 => self.data.put_i64_le(self.number(token)?),
            DataType::Fp32 => {
                let value: f32 = self.number(token)?;
                self.data.put_f32_le(if value.is_finite() { value } else { return Err(self.wrong(token)) });
            }
            DataType::Fp64 => {
                let value: f64 = self.number(token)?;
                self.data.put_f64_le(if value.is_finite() { value } else { return Err(self.wrong(token)) });
            }
            DataType::Bytes => {
                let text: Option<Text> =
                    token.starts_with('"').then(|| serde_json::from_str(token).ok()).flatten();
                let Text(text) = text.ok_or_else(|| self.wrong(token))?;
                // As long as a part of a request, which is far under 4 GiB.
                self.data.put_u32_le(u32::try_from(text.len()).map_err(|_| self.wrong("a string"))?);
                self.data.put_slice(text.as_bytes());
            }
            DataType::Fp16 | DataType::Bf16 => {
                return Err(format!(
                    "is {}, which JSON has no numbers for: send it as binary data (`binary_data_size`)",
                    self.datatype
                ));
            }
        }
        Ok(())
    }

    /// A JSON number, read as the element's own type: rounded once, if at all.
    fn number<T: FromStr>(&self, token: &str) -> Result<T, String> {
        // Rust also reads words (`inf`, `NaN`), which are no JSON and so do not come here, and `+1`, which neither does.
        let is_number = token.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        is_number.then(|| token.parse().ok()).flatten().ok_or_else(|| self.wrong(token))
    }

    fn wrong(&self, token: &str) -> String {
        let shown: String = token.chars().take(40).collect();
        let dots = if shown.len() < token.len() { "…" } else { "" };
        format!("has the element {shown}{dots}, which is no {} value", self.datatype)
    }
}

/// A string; borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Writes the elements of `tensor` as one flat JSON array.
///
/// # Errors
/// As [`read`], for what JSON cannot carry: NaN and infinities, half floats, and byte strings that are no UTF-8.
pub(super) fn write(tensor: &Tensor, out: &mut Vec<u8>) -> Result<(), String> {
    let data = &*tensor.data;
    match tensor.datatype {
        DataType::Bool => list(out, data.iter().map(|&byte| Ok(byte != 0))),
        DataType::Uint8 => list(out, data.iter().map(|&byte| Ok(byte))),
        DataType::Uint16 => list(out, words(data).map(|word| Ok(u16::from_le_bytes(word)))),
        DataType::Uint32 => list(out, words(data).map(|word| Ok(u32::from_le_bytes(word)))),
        DataType::Uint64 => list(out, words(data).map(|word| Ok(u64::from_le_bytes(word)))),
        DataType::Int8 => list(out, words(data).map(|word| Ok(i8::from_le_bytes(word)))),
        DataType::Int16 => list(out, words(data).map(|word| Ok(i16::from_le_bytes(word)))),
        DataType::Int32 => list(out, words(data).map(|word| Ok(i32::from_le_bytes(word)))),
        DataType::Int64 => list(out, words(data).map(|word| Ok(i64::from_le_bytes(word)))),
        DataType::Fp32 => {
            list(out, words(data).map(|word| finite(f32::from_le_bytes(word), |value| value.is_finite())))
        }
        DataType::Fp64 => {
            list(out, words(data).map(|word| finite(f64::from_le_bytes(word), |value| value.is_finite())))
        }
        DataType::Bytes => {
            let ends = byte_string_ends(data).unwrap_or_default();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let text = |(start, &end): (usize, &usize)| {
                std::str::from_utf8(&data[start + size_of::<u32>()..end])
                    .map_err(|_| "has bytes that are no UTF-8 text".to_owned())
            };
            list(out, starts.zip(&ends).map(text))
        }
        DataType::Fp16 | DataType::Bf16 => {
            Err(format!("is {}, which JSON has no numbers for", tensor.datatype))
        }
    }
}

fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks::<N>().0.iter().copied()
}

fn finite<T>(value: T, is_finite: impl Fn(&T) -> bool) -> Result<T, String> {
    if is_finite(&value) {
        Ok(value)
    } else {
        Err("holds NaN or infinity, which JSON has no word for".to_owned())
    }
}

fn list<T: serde::Serialize>(
    out: &mut Vec<u8>,
    elements: impl Iterator<Item = Result<T, String>>,
) -> Result<(), String> {
    out.push(b'[');
    for (at, element) in elements.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &element?)
            .map_err(|error| format!("cannot be written ({error})"))?;
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests;
