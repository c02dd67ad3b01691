//! Who a client is, by the certificate that it came with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

/// A client whose certificate was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The common name of its certificate; empty if that has none.
    pub user: String,
    /// Its certificates in PEM, its own first.
    pub certificates: Vec<String>,
}

impl Peer {
    /// The client with these certificates, its own first; none without any.
    pub fn of(certificates: &[CertificateDer<'_>]) -> Option<Peer> {
        let first = certificates.first()?;
        Some(Peer {
            user: common_name(first).unwrap_or_default(),
            certificates: certificates.iter().map(|certificate| pem(certificate)).collect(),
        })
    }
}

/// RFC 7468.
fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// The optional version of a certificate, `[0]`.
const VERSION: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The last common name of a certificate's subject (RFC 5280), as Go reads it.
fn common_name(certificate: &[u8]) -> Option<String> {
    let mut certificate = Der(Der(certificate).expect(SEQUENCE)?);
    let mut signed = Der(certificate.expect(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.next()?;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        signed.next()?;
    }
    let mut subject = Der(signed.expect(SEQUENCE)?);
    let mut found = None;
    while !subject.0.is_empty() {
        let mut names = Der(subject.expect(SET)?);
        while !names.0.is_empty() {
            let mut pair = Der(names.expect(SEQUENCE)?);
            if pair.expect(OBJECT_IDENTIFIER)? == COMMON_NAME {
                let (kind, bytes) = pair.next()?;
                found = Some(text(kind, bytes)?);
            }
        }
    }
    found
}

/// A string of one of the kinds that names are made of.
fn text(kind: u8, bytes: &[u8]) -> Option<String> {
    match kind {
        // UTF-8, numeric, printable, IA5.
        0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8(bytes.to_vec()).ok(),
        // Teletex, which is taken for Latin-1.
        0x14 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        // Two bytes for each character.
        0x1e if bytes.len().is_multiple_of(2) => {
            let units: Vec<u16> =
                bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// Elements of a document in DER, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            let (digits, after) = rest.split_at_checked(count)?;
            if count == 0 || count > 4 {
                return None;
            }
            length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            rest = after;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element with a length of one or two bytes.
    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(short) if short < 0x80 => bytes.push(short),
            _ => {
                bytes.push(0x82);
                bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            }
        }
        [bytes, content].concat()
    }

    fn named(oid: &[u8], kind: u8, name: &[u8]) -> Vec<u8> {
        let pair = element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, &[oid]), &element(kind, &[name])]);
        element(SET, &[&pair])
    }

    fn certificate(version: bool, names: &[Vec<u8>]) -> Vec<u8> {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let other = element(SEQUENCE, &[&named(&COMMON_NAME, 0x0c, b"the issuer")]);
        let version = if version { element(VERSION, &[&[2, 1, 2]]) } else { Vec::new() };
        let rest = [0x55; 300];
        let signed = element(
            SEQUENCE,
            &[
                &version,
                &[2, 1, 7],
                &[SEQUENCE, 0],
                &other,
                &[SEQUENCE, 0],
                &element(SEQUENCE, &names),
                &rest,
            ],
        );
        element(SEQUENCE, &[&signed, &[SEQUENCE, 0], &[3, 0]])
    }

    #[test]
    fn the_common_name_is_the_users() {
        let organisation = [0x55, 0x04, 0x0a];
        let names = [named(&organisation, 0x13, b"Org"), named(&COMMON_NAME, 0x0c, "cliënt".as_bytes())];
        for version in [true, false] {
            assert_eq!(common_name(&certificate(version, &names)).as_deref(), Some("cliënt"));
        }
        let two = [named(&COMMON_NAME, 0x13, b"a"), named(&COMMON_NAME, 0x1e, &[0, b'b', 0x20, 0xac])];
        assert_eq!(common_name(&certificate(true, &two)).as_deref(), Some("b€"));
        assert_eq!(common_name(&certificate(true, &[])), None);
        assert_eq!(Peer::of(&[]), None);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_read_without_harm() {
        let whole = certificate(true, &[named(&COMMON_NAME, 0x0c, b"name")]);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None);
        }
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[place] = value;
                // Whatever it says: it comes back.
                let _ = common_name(&changed);
            }
        }
    }

    #[test]
    fn pem_has_short_lines() {
        let text = pem(&[7; 100]);
        assert!(text.lines().all(|line| line.len() <= 64) && text.lines().count() == 5, "{text}");
    }
}
