//! What an HTTP server says to a request, as much of it as has come.

/// The longest answer that is read.
const MOST: usize = 64 << 10;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is more to come.
    Unfinished,
    /// It was taken.
    Taken,
    /// It will never be taken.
    Refused,
    /// It may be taken later, or this is no answer.
    Failed,
}

/// Reads an answer.
pub(super) fn read(received: &[u8]) -> Answer {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
        return if received.len() > MOST { Answer::Failed } else { Answer::Unfinished };
    };
    let Ok(head) = std::str::from_utf8(&received[..end]) else { return Answer::Failed };
    let body = &received[end + 4..];
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let Some(status) = status else { return Answer::Failed };
    let field = |name: &str| {
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).last()
    };
    let whole = if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n")
    } else {
        match field("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) => body.len() >= length,
            Some(Err(_)) => return Answer::Failed,
            // Its end is that of the connection, which is not waited for.
            None => true,
        }
    };
    match status {
        _ if !whole && received.len() > MOST => Answer::Failed,
        _ if !whole => Answer::Unfinished,
        200..=299 => Answer::Taken,
        // Too slow, too much: later it may be well.
        408 | 429 => Answer::Failed,
        400..=499 => Answer::Refused,
        _ => Answer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_end() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 4\r\n\r\n{ok}";
        for length in 0..ok.len() {
            assert_eq!(read(&ok[..length]), Answer::Unfinished, "{length}");
        }
        assert_eq!(read(ok), Answer::Taken);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{ok}\r\n0\r\n\r\n";
        assert_eq!(read(&chunked[..chunked.len() - 1]), Answer::Unfinished);
        assert_eq!(read(chunked), Answer::Taken);
        for (status, answer) in [
            ("403 Forbidden", Answer::Refused),
            ("429 Too Many Requests", Answer::Failed),
            ("503 Busy", Answer::Failed),
        ] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(read(text.as_bytes()), answer, "{status}");
        }
        assert_eq!(read(b"what?\r\n\r\n"), Answer::Failed);
        assert_eq!(read(&[b'x'; MOST + 1]), Answer::Failed);
    }
}
