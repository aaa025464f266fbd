//! Bytes as people compare them.

use std::fmt::Write as _;

/// `bytes` in hexadecimal, two small letters or digits for each.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(hexadecimal(&[0, 10, 0xff]), "000aff");
        assert_eq!(hexadecimal(&[]), "");
    }
}
