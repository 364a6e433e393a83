use super::*;

const PLAIN: &[u8] = b"thirty-two bytes of a test secret";
const PASSPHRASE: &str = "eight words are easier than eight characters";

/// Made by the `age` tool 1.1.1 (`age -p -a`).
const BY_AGE: &str = "\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBnTEUydEt3Sjl0RkZvd0pq
V2xKZkRRIDE4CjJzYTFrRk5qT0FzUm1RelhjZXJjNTNaODh6cnFlc0ZVVW0vWWlw
MmJGT3MKLS0tIDBtNFRRQk52ZTF4K3dDRTVVWE5yamRrbUZNUjFxR2ZiUG1GNWRD
NVNzUnMKV5OVpjqR8csXnIcUzx82wzvy33bIkSaySTLhyH2xeVALFCCBkZdHpIFB
GrIq6HcvY26wDrIidyJeYh5d1RYMLp4=
-----END AGE ENCRYPTED FILE-----
";
/// Made by the crate `age` 0.12.1 with a work factor of 10.
const BY_RAGE: &str = "\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCA2cVgzRW9ucTNlOExEUFZo
WFBEMjdBIDEwCjJrd3pjcE1WZkk0RUJKVk9pakNTNDQ1NDNyQnJPY0Z3V3VJM0hF
cGRjb00KLS0tIHNaaHZkZ3NpTjkyYWg3ZzNCYkdqYlcwQkUyU3lNZ2ZYa1VUZk5N
aEhuM2MKLZNQPOMh6MBkmPfgyZ4CxArfhPEXUGnKzaHsSVAilpMO5Ubzvm1+YKqu
tRp8yryvpjC6BSZjt0amUZMM3NSEojs=
-----END AGE ENCRYPTED FILE-----
";
const CHEAP: WorkFactor = WorkFactor(2);

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn fresh() -> Fresh {
    Fresh { file_key: Zeroizing::new([1; 16]), salt: [2; 16], nonce: [3; 16] }
}

fn sealed(plain: &[u8]) -> String {
    seal(plain, &passphrase(PASSPHRASE), CHEAP, &fresh()).unwrap()
}

fn opened(text: &str) -> Result<Vec<u8>, AgeError> {
    open(text, &passphrase(PASSPHRASE)).map(|plain| plain.to_vec())
}

/// The file without its armor as text (its payload lossy), changed, in armor again.
fn with_header(change: impl Fn(&str) -> String) -> String {
    let file = unarmored(&sealed(PLAIN)).unwrap();
    let end = file.windows(4).position(|w| w == b"\n---").unwrap();
    let mac_end = end + 1 + file[end + 1..].iter().position(|b| *b == b'\n').unwrap();
    let mut changed = change(std::str::from_utf8(&file[..mac_end]).unwrap()).into_bytes();
    changed.extend_from_slice(&file[mac_end..]);
    armored(&changed)
}

#[test]
fn what_the_age_tool_and_its_rust_library_made_opens_here() {
    assert_eq!(opened(BY_AGE).unwrap(), PLAIN);
    assert_eq!(opened(BY_RAGE).unwrap(), PLAIN);
    assert_eq!(opened(&BY_RAGE.replace('\n', "\r\n")).unwrap(), PLAIN);
}

#[test]
fn what_was_sealed_opens_with_its_passphrase_only() {
    for plain in [&b""[..], b"x", PLAIN, &[7; PLAIN_MAX_BYTES]] {
        assert_eq!(opened(&sealed(plain)).unwrap(), plain);
    }
    let other = open(&sealed(PLAIN), &passphrase("Eight words are easier than eight characters"));
    assert_eq!(other.unwrap_err(), AgeError::WrongPassphrase);
    assert_eq!(seal(&[0; PLAIN_MAX_BYTES + 1], &passphrase("x"), CHEAP, &fresh()), Err(AgeError::TooLarge));
}

#[test]
fn a_file_that_is_torn_or_altered_anywhere_never_opens() {
    let whole = sealed(PLAIN);
    let text = whole.trim_end();
    for end in 0..text.len() {
        let torn = opened(&text[..end]).unwrap_err();
        assert!(matches!(torn, AgeError::Shape(_)), "{end}: {torn}");
    }
    let file = unarmored(&whole).unwrap();
    let header = file.windows(4).position(|w| w == b"\n---").unwrap();
    for at in 0..file.len() {
        for bit in [1, 0x20, 0x80] {
            let mut bad = file.clone();
            bad[at] ^= bit;
            let error = opened(&armored(&bad)).unwrap_err();
            // Behind the lines that the passphrase is tried on, it is known to be the right one.
            if at > header + 50 {
                assert_eq!(error, AgeError::Altered, "{at}");
            }
        }
        let error = opened(&armored(&file[..at])).unwrap_err();
        assert!(matches!(error, AgeError::Shape(_) | AgeError::Altered), "{at}: {error}");
    }
    let mut longer = file;
    longer.push(0);
    assert_eq!(opened(&armored(&longer)), Err(AgeError::Altered));
}

#[test]
fn a_file_that_asks_for_too_much_work_costs_none() {
    let begun = std::time::Instant::now();
    for (asked, found) in
        [("20", 20), ("23", 23), ("63", 63), ("255", 255), ("256", 255), ("99999999999999999999", 255)]
    {
        let hostile = with_header(|header| header.replace(" 2\n", &format!(" {asked}\n")));
        assert_eq!(judge(&hostile), Err(AgeError::WorkFactor { found }), "{asked}");
        assert_eq!(opened(&hostile), Err(AgeError::WorkFactor { found }), "{asked}");
    }
    // Each of these would take seconds and a gibibyte at the least.
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_header_has_one_spelling() {
    let salt = STANDARD_NO_PAD.encode([2; 16]);
    for (from, to, expected) in [
        (" 2\n", " 02\n", AgeError::Shape("its work factor is no number")),
        (" 2\n", " +2\n", AgeError::Shape("its work factor is no number")),
        (" 2\n", " 0\n", AgeError::Shape("its work factor is no number")),
        (" 2\n", " 2x\n", AgeError::Shape("its work factor is no number")),
        (" 2\n", " \n", AgeError::Shape("its work factor is no number")),
        (" 2\n", " 2 2\n", AgeError::Shape("its recipient line")),
        (" 2\n", "\n", AgeError::Shape("its recipient line")),
        (" 2\n", " 3\n", AgeError::WrongPassphrase),
        ("scrypt", "X25519", AgeError::OtherRecipient),
        ("-> scrypt", "-> ssh-rsa a\n\n-> scrypt", AgeError::OtherRecipient),
        ("\n---", "\n-> scrypt AAAA 2\nAAAA\n---", AgeError::OtherRecipient),
        (salt.as_str(), "AgIC", AgeError::Shape("its salt has another length")),
        (salt.as_str(), &format!("{salt}=="), AgeError::Shape("its header is not base64")),
        // The last character says more than 16 bytes hold.
        (salt.as_str(), &format!("{}h", &salt[..21]), AgeError::Shape("its header is not base64")),
        ("org/v1\n", "org/v2\n", AgeError::OtherVersion),
        ("age-enc", "rot-enc", AgeError::Shape("no header of age")),
        ("\n---", "\n--", AgeError::Shape("its header has no end")),
    ] {
        let bad = with_header(|header| header.replacen(from, to, 1));
        assert_eq!(opened(&bad), Err(expected), "{from:?} → {to:?}");
    }
}

#[test]
fn the_armor_has_one_spelling_and_nothing_around_it() {
    let good = sealed(PLAIN);
    for bad in [
        good.replace("BEGIN AGE", "BEGIN PGP"),
        format!("x{good}"),
        format!("{good}x"),
        good.replacen('\n', "\n\n", 2),
        good.replacen("YWdl", "YWd", 1),
        good.replace("-----END AGE ENCRYPTED FILE-----", ""),
        format!("{ARMOR_BEGIN}\n{}", "A".repeat(ARMORED_MAX_BYTES)),
        String::new(),
    ] {
        assert!(matches!(opened(&bad), Err(AgeError::Shape(_) | AgeError::TooLarge)), "{bad}");
    }
}

#[test]
fn a_work_factor_is_a_number_within_bounds() {
    assert_eq!("14".parse(), Ok(WorkFactor::MIN));
    assert_eq!("19".parse(), Ok(WorkFactor::MAX));
    for bad in ["13", "20", "", "-1", "x", "256"] {
        assert!(bad.parse::<WorkFactor>().is_err(), "{bad}");
    }
}
