//! As much of HTTP/1.1 (RFC 9112) as a check needs: one GET, and the answer's status and beginning.

use super::address::Url;

/// Longest head of an answer.
pub const MAX_HEAD: usize = 16 << 10;

/// The request. It follows nothing, keeps nothing open, and accepts everything.
pub fn request(url: &Url) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: berth-healthcheck\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target, url.host
    )
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Chunked,
    Length(usize),
    ToEnd,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The first line.
    pub line: String,
    /// How the body ends.
    pub framing: Framing,
    /// Where it begins.
    pub body: usize,
}

impl Head {
    /// Whether the server says that it is well.
    pub fn is_well(&self) -> bool {
        (200..400).contains(&self.status)
    }
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the answer is not HTTP/1")]
    NotHttp,
    #[error("the head of the answer is too long")]
    TooLong,
}

/// Reads the head of the final answer; nothing while it has not come whole. Interim answers (1xx) are passed over.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let known = rest.len().min(7);
        if rest[..known] != b"HTTP/1."[..known] {
            return Err(Malformed::NotHttp);
        }
        let Some(length) = end_of_head(rest) else {
            return if bytes.len() >= MAX_HEAD { Err(Malformed::TooLong) } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&rest[..length]);
        let mut lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        let line = lines.next().unwrap_or_default();
        let code = line.split(' ').nth(1).filter(|code| code.len() == 3);
        let status: u16 = code.and_then(|code| code.parse().ok()).ok_or(Malformed::NotHttp)?;
        at += length;
        if status >= 200 {
            let framing = framing(lines);
            return Ok(Some(Head { status, line: line.to_owned(), framing, body: at }));
        }
    }
}

/// The length of a head with the empty line at its end.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if matches!(&bytes[line..at], b"" | b"\r") {
            return Some(at + 1);
        }
        line = at + 1;
    }
    None
}

fn framing<'a>(lines: impl Iterator<Item = &'a str>) -> Framing {
    let mut framing = Framing::ToEnd;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") && value.to_ascii_lowercase().contains("chunked") {
            return Framing::Chunked;
        }
        if name.eq_ignore_ascii_case("content-length") {
            framing = value.trim().parse().map_or(framing, Framing::Length);
        }
    }
    framing
}

/// Whether a body of which `raw` has come is whole.
pub fn is_whole(framing: Framing, raw: &[u8]) -> bool {
    match framing {
        Framing::Chunked => chunks(raw).1,
        Framing::Length(length) => raw.len() >= length,
        Framing::ToEnd => false,
    }
}

/// What a body says, as far as it has come.
pub fn content(framing: Framing, raw: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Chunked => chunks(raw).0,
        Framing::Length(length) => raw[..raw.len().min(length)].to_vec(),
        Framing::ToEnd => raw.to_vec(),
    }
}

/// The content of chunks, and whether the last one has come.
fn chunks(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(end) = raw.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&raw[..end]);
        let size = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else { return (content, true) };
        if size == 0 {
            return (content, true);
        }
        raw = &raw[end + 1..];
        content.extend_from_slice(&raw[..raw.len().min(size)]);
        // The line's end after the chunk.
        raw = size.checked_add(2).and_then(|size| raw.get(size..)).unwrap_or_default();
    }
    (content, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_request_is_made() {
        let text = request(&Url::parse("http://localhost:81/a?b").unwrap());
        assert!(
            text.starts_with("GET /a?b HTTP/1.1\r\nHost: localhost:81\r\n") && text.ends_with("\r\n\r\n")
        );
    }

    #[test]
    fn heads_are_read() {
        let read = |text: &str| head(text.as_bytes());
        let found = read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap().unwrap();
        assert_eq!(
            (found.status, found.line.as_str(), found.framing),
            (200, "HTTP/1.1 200 OK", Framing::Length(2))
        );
        assert_eq!(found.body, 38);
        assert!(found.is_well());
        let found = read("HTTP/1.0 503 No\nTransfer-Encoding: Chunked\n\n").unwrap().unwrap();
        assert_eq!((found.status, found.framing, found.is_well()), (503, Framing::Chunked, false));
        let found = read("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302\r\n\r\n").unwrap().unwrap();
        assert_eq!((found.status, found.is_well(), found.framing), (302, true, Framing::ToEnd));
        for partial in ["", "HT", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
            assert_eq!(read(partial), Ok(None), "{partial}");
        }
        for bad in
            ["SSH-2.0", "HTTP/2 200", "HTTP/1.1 2 OK\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", "HTTP/1.1\r\n\r\n"]
        {
            assert_eq!(read(bad), Err(Malformed::NotHttp), "{bad}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(read(&endless), Err(Malformed::TooLong));
    }

    #[test]
    fn bodies_are_read() {
        let raw = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(content(Framing::Chunked, raw), b"abcde");
        assert!(is_whole(Framing::Chunked, raw) && !is_whole(Framing::Chunked, &raw[..10]));
        assert_eq!(content(Framing::Chunked, &raw[..5]), b"ab");
        assert_eq!(content(Framing::Length(2), b"abc"), b"ab");
        assert!(is_whole(Framing::Length(0), b"") && !is_whole(Framing::ToEnd, b"abc"));
    }

    proptest! {
        #[test]
        fn no_answer_hurts(bytes: Vec<u8>, prefix in "(HTTP/1.[01] [0-9]{0,4})?[\r\n]{0,4}([0-9a-f]{0,17}\r\n)?") {
            let all = [prefix.as_bytes(), &bytes].concat();
            if let Ok(Some(found)) = head(&all) {
                prop_assert!(found.body <= all.len());
            }
            let (content, _) = chunks(&all);
            prop_assert!(content.len() <= all.len());
        }

        #[test]
        fn what_has_come_in_part_is_never_refused(cut in 0usize..60) {
            let whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nA: b\r\n\r\n";
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(head(&whole[..cut]), Ok(None));
        }
    }
}
