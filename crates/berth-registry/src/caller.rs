//! On whose behalf registries are asked.

use crate::Credentials;

/// Who wants something of a registry.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// What they have for it.
    pub credentials: Option<Credentials>,
    /// What they have for other registries that may have to be asked, by the names of these.
    pub others: Vec<(String, Credentials)>,
    /// What the program that they use calls itself (the value of its `User-Agent`).
    pub agent: Option<Vec<u8>>,
}

/// The value of `User-Agent` for requests on behalf of another program: `own`, and the other one in a comment (RFC 9110,
/// section 10.1.5) of the form that Docker's daemon made known.
pub(crate) fn user_agent(own: &str, upstream: Option<&[u8]>) -> Vec<u8> {
    let mut value = own.as_bytes().to_vec();
    if let Some(upstream) = upstream.filter(|text| !text.is_empty()) {
        value.extend_from_slice(b" UpstreamClient(");
        for byte in upstream {
            match byte {
                b'(' | b')' | b';' | b'\\' => value.extend_from_slice(&[b'\\', *byte]),
                b'\t' | b' '..=b'~' | 0x80.. => value.push(*byte),
                _ => {}
            }
        }
        value.push(b')');
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_program_stands_in_a_comment() {
        let text = |upstream: Option<&[u8]>| user_agent("docker/1.2", upstream);
        assert_eq!(text(None), b"docker/1.2");
        assert_eq!(text(Some(b"")), b"docker/1.2");
        assert_eq!(
            text(Some(b"Docker-Client/29.8 (linux); \\ \xe9")),
            b"docker/1.2 UpstreamClient(Docker-Client/29.8 \\(linux\\)\\; \\\\ \xe9)"
        );
        assert_eq!(text(Some(b"a\r\nX-Evil: b\x7f\tc")), b"docker/1.2 UpstreamClient(aX-Evil: b\tc)");
    }
}
