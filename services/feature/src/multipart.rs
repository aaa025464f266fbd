//! The parts of a `multipart/form-data` body (RFC 7578, RFC 2046), each a view of the body.
//!
//! The usual parsers read streams, and copy what comes into a buffer of their own. Here the whole body lies in one piece of
//! memory before it is looked at, so nothing need be copied.

use bytes::Bytes;
use http::HeaderValue;
use memchr::{memchr, memmem};
use mime::Mime;

/// Headers that a part may have.
const MAX_HEADERS: usize = 32;
const CRLF: &[u8] = b"\r\n";

/// Why a body is no form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// The Content-Type has no boundary, or is none.
    #[error("Invalid `boundary` for `multipart/form-data` request")]
    Boundary,
    /// It ends before its last boundary, or something else follows a boundary than a line's end.
    #[error("incomplete multipart stream")]
    Incomplete,
    /// A part's headers are none, or too many.
    #[error("failed to read headers")]
    Headers,
    /// It ends within a part: its name, if it has one.
    #[error("field {:?} received with incomplete data", .0.as_deref().unwrap_or("<unknown>"))]
    IncompleteField(Option<String>),
}

/// One part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The field's name, if it has one that is UTF-8.
    pub(crate) name: Option<String>,
    /// What was sent in it: a view of the body.
    pub(crate) data: Bytes,
}

/// The parts of a body, one after the other.
#[derive(Debug)]
pub(crate) struct Parts {
    body: Bytes,
    /// What ends a part's data: a line's end, two hyphens and the boundary.
    delimiter: memmem::Finder<'static>,
    /// Just behind the boundary that was found last.
    at: usize,
}

impl Parts {
    /// Of a body with this Content-Type. What comes before its first boundary is passed over.
    pub(crate) fn of(content_type: Option<&HeaderValue>, body: Bytes) -> Result<Self, FormError> {
        let boundary = content_type.and_then(boundary).ok_or(FormError::Boundary)?;
        let delimiter = format!("\r\n--{boundary}");
        let first = &delimiter.as_bytes()[CRLF.len()..];
        let at = memmem::find(&body, first).ok_or(FormError::Incomplete)? + first.len();
        let delimiter = memmem::Finder::new(&delimiter).into_owned();
        Ok(Self { body, delimiter, at })
    }

    /// The next part. What comes after the last boundary is nobody's concern. After an error there is nothing more to be had.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, FormError> {
        let rest = &self.body[self.at..];
        if rest.starts_with(b"--") {
            return Ok(None);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let head = rest[padding..].strip_prefix(CRLF).ok_or(FormError::Incomplete)?;
        let head_bytes = memmem::find(head, b"\r\n\r\n").ok_or(FormError::Incomplete)? + 2 * CRLF.len();
        let (head, data) = head.split_at(head_bytes);
        let name = name(head)?;
        let Some(data_bytes) = self.delimiter.find(data) else {
            return Err(FormError::IncompleteField(name));
        };
        let data_at = self.body.len() - data.len();
        self.at = data_at + data_bytes + self.delimiter.needle().len();
        Ok(Some(Part { name, data: self.body.slice(data_at..data_at + data_bytes) }))
    }
}

fn boundary(content_type: &HeaderValue) -> Option<String> {
    let media_type: Mime = content_type.to_str().ok()?.parse().ok()?;
    if media_type.essence_str() != "multipart/form-data" {
        return None;
    }
    media_type.get_param(mime::BOUNDARY).map(|boundary| boundary.as_str().to_owned())
}

/// The name in a part's headers.
fn name(head: &[u8]) -> Result<Option<String>, FormError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(head, &mut headers) else {
        return Err(FormError::Headers);
    };
    // Of several the last counts.
    let disposition = headers.iter().rfind(|header| header.name.eq_ignore_ascii_case("content-disposition"));
    Ok(disposition.and_then(|header| name_parameter(header.value)))
}

/// The parameter `name` of a Content-Disposition. Some clients send it without quotation marks.
fn name_parameter(mut disposition: &[u8]) -> Option<String> {
    loop {
        let at = memmem::find(disposition, b"name")?;
        let (before, value) = (&disposition[..at], &disposition[at + 4..]);
        // Others, `filename` for one, end so too.
        if before.last().is_some_and(|byte| !byte.is_ascii_whitespace() && *byte != b';') {
            disposition = value;
            continue;
        }
        let value = value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        return match value.strip_prefix(b"\"") {
            Some(quoted) => text(&quoted[..closing_mark(quoted)?]).map(|text| text.replace("\\\"", "\"")),
            None => text(value.split(|byte| matches!(byte, b';' | b' ')).next().unwrap_or_default()),
        };
    }
}

/// Where a quoted string ends. Browsers write `\"` for a quotation mark in it, and leave other backslashes as they are.
fn closing_mark(quoted: &[u8]) -> Option<usize> {
    let mut at = memchr(b'"', quoted)?;
    while at > 0 && quoted[at - 1] == b'\\' {
        at += 1 + memchr(b'"', &quoted[at + 1..])?;
    }
    Some(at)
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests;
