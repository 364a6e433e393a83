//! A planted secret in all the shapes in which a program could have let it out, and the search for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

/// Bytes of which chance gives no match in some gigabytes: shorter shapes are left out.
const SHAPE_MIN_BYTES: usize = 6;

/// Something that must not be found, and how it might look.
#[derive(Debug, Clone)]
pub struct Canary {
    /// What it is called in findings: never the secret itself.
    pub name: &'static str,
    shapes: Vec<Vec<u8>>,
}

impl Canary {
    /// A text: as it is, in capitals, in UTF-16, in hexadecimal and in Base64 at each of its three alignments.
    pub fn text(name: &'static str, text: &str) -> Self {
        let mut canary = Self::bytes(name, text.as_bytes());
        let utf16 = |wide: &str| wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
        canary.add([text.to_uppercase().into_bytes(), text.to_lowercase().into_bytes(), utf16(text)]);
        canary
    }

    /// Bytes such as a key: as they are, in hexadecimal and in Base64.
    pub fn bytes(name: &'static str, bytes: &[u8]) -> Self {
        let mut canary = Self { name, shapes: Vec::new() };
        let hex = |upper: bool| {
            let digit = |b: &u8| if upper { format!("{b:02X}") } else { format!("{b:02x}") };
            bytes.iter().map(digit).collect::<String>().into_bytes()
        };
        canary.add([bytes.to_vec(), hex(false), hex(true)]);
        for (standard, skipped) in [(true, 0), (true, 1), (true, 2), (false, 0), (false, 1), (false, 2)] {
            canary.add([base64_inside(bytes, skipped, standard)]);
        }
        canary
    }

    /// A reading's digits, without sign or exponent: as text, and as the integer of all digits in both byte orders, and as a float.
    pub fn digits(name: &'static str, digits: &str) -> Result<Self> {
        let mut canary = Self::text(name, digits);
        let mantissa: u64 = digits.replace('.', "").parse().context("a canary of digits is a number")?;
        let short = |bytes: [u8; 8], keep: fn(&[u8]) -> Option<&[u8]>| keep(&bytes).unwrap_or_default().to_vec();
        canary.add([
            mantissa.to_string().into_bytes(),
            // Without the zero bytes above: as it lies in any field that is wide enough.
            short(mantissa.to_be_bytes(), |b| b.get(b.iter().position(|b| *b != 0)?..)),
            short(mantissa.to_le_bytes(), |b| b.get(..=b.iter().rposition(|b| *b != 0)?)),
            digits.parse::<f64>()?.to_be_bytes().to_vec(),
            digits.parse::<f64>()?.to_le_bytes().to_vec(),
        ]);
        Ok(canary)
    }

    fn add(&mut self, shapes: impl IntoIterator<Item = Vec<u8>>) {
        let long = shapes.into_iter().filter(|shape| shape.len() >= SHAPE_MIN_BYTES);
        self.shapes.extend(long);
        self.shapes.sort();
        self.shapes.dedup();
    }

    /// Whether one of its shapes is in the bytes.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.shapes.iter().any(|shape| memmem::find(bytes, shape).is_some())
    }
}

/// The middle of the bytes' Base64 when `skipped` bytes of something else come before: what does not depend on the neighbours.
fn base64_inside(bytes: &[u8], skipped: usize, standard: bool) -> Vec<u8> {
    let alphabet: &[u8] = if standard {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    } else {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    };
    // From the first whole group of three bytes on, whole groups only.
    let start = (3 - skipped) % 3;
    let groups = bytes.get(start..).unwrap_or_default().chunks_exact(3);
    let symbol = |six: u32| alphabet.get(usize::try_from(six & 63).unwrap_or(0)).copied().unwrap_or(b'A');
    groups
        .flat_map(|group| {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            [symbol(bits >> 18), symbol(bits >> 12), symbol(bits >> 6), symbol(bits)]
        })
        .collect()
}

/// Every file below a folder, links not followed, that holds the canary.
pub fn files_with(folder: &Path, canary: &Canary) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut seen = 0usize;
    walk(folder, &mut |path| {
        seen += 1;
        let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
        if canary.is_in(&std::fs::read(path)?) || canary.is_in(&name) {
            found.push(path.to_owned());
        }
        Ok(())
    })?;
    ensure!(seen > 0, "{} holds no file: nothing was searched", folder.display());
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), visit)?;
        } else if kind.is_file() {
            visit(&entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_as_text_integer_float_hexadecimal_and_base64() {
        let canary = Canary::digits("value", "97.187346528301").unwrap();
        let mantissa = 97_187_346_528_301u64;
        for hidden in [
            b"{\"hr\":97.187346528301}".to_vec(),
            [&[0x1b][..], &mantissa.to_be_bytes()].concat(),
            [&[7][..], &mantissa.to_le_bytes(), &[9]].concat(),
            97.187_346_528_301f64.to_le_bytes().to_vec(),
            97.187_346_528_301f64.to_be_bytes().to_vec(),
            b"..39372e313837333436353238333031..".to_vec(),
            // base64 of `97.187346528301` after nothing, one and two bytes
            b"OTcuMTg3MzQ2NTI4MzAx".to_vec(),
            b"eDk3LjE4NzM0NjUyODMwMQ==".to_vec(),
            b"eHk5Ny4xODczNDY1MjgzMDE=".to_vec(),
        ] {
            assert!(canary.is_in(&hidden), "{}", String::from_utf8_lossy(&hidden));
        }
        for other in [&b"97.18734652830"[..], b"97187346528300", b"", b"9"] {
            assert!(!canary.is_in(other), "{other:?}");
        }
    }

    #[test]
    fn a_file_is_found_by_what_it_holds_and_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let canary = Canary::text("name", "Zwirbelstein");
        assert!(files_with(folder.path(), &canary).is_err(), "an empty folder proves nothing");
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/file"), "… ZWIRBELSTEIN …").unwrap();
        std::fs::write(folder.path().join("zwirbelstein.txt"), "").unwrap();
        std::fs::write(folder.path().join("other"), "Zwirbel stein").unwrap();
        let found = files_with(folder.path(), &canary).unwrap();
        assert_eq!(found, [folder.path().join("deep/file"), folder.path().join("zwirbelstein.txt")]);
    }
}
