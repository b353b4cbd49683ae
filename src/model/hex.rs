//! Bytes as hexadecimal digits.

use std::fmt;

/// Writes two lower-case digits for each byte, and keeps no copy of them.
pub fn write(bytes: &[u8], into: &mut impl fmt::Write) -> fmt::Result {
    for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        into.write_char(char::from_digit(digit.into(), 16).unwrap_or('0'))?;
    }
    Ok(())
}

/// Returns two lower-case digits for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    let _ = write(bytes, &mut text);
    text
}

/// Decodes digits of either case into `bytes`. `None` if the text has other characters or another length.
#[must_use]
pub fn decode(text: &str, bytes: &mut [u8]) -> Option<()> {
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |it: u8| (it as char).to_digit(16);
        *byte = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_give_the_bytes_back_and_nothing_else_does() {
        let mut bytes = [0; 3];
        assert_eq!(encode(&[0, 0x9a, 0xff]), "009aff");
        assert_eq!((decode("009aFf", &mut bytes), bytes), (Some(()), [0, 0x9a, 0xff]));
        for wrong in ["", "009af", "009aff0", "+09aff", "009ag0", "00\u{e9}ff", " 09aff"] {
            assert_eq!(decode(wrong, &mut bytes), None, "{wrong}");
        }
    }
}
