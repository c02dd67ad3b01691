//! The system's message bus (D-Bus), as much of it as a question takes: a method with texts, and the text that it returns.
//!
//! What others say on the bus is untrusted: lengths are checked, and nothing is believed but the answer to the question.

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long an answer may take: firewalld answers nobody while it loads its rules again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest message that is read, in bytes; answers are names.
const LONGEST: usize = 1 << 20;
/// Messages for others, or to everybody, that are passed over before an answer.
const PASSED_OVER: usize = 1000;
const SOCKET: &str = "/run/dbus/system_bus_socket";
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
/// Header fields (D-Bus Specification, "Header Fields").
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What is asked, of whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// A connection to the bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects, and says who is there.
    pub(super) fn connect() -> io::Result<Bus> {
        let mut stream = UnixStream::connect(socket(env::var("DBUS_SYSTEM_BUS_ADDRESS").ok().as_deref()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
            if answer.len() > 1024 {
                return Err(malformed());
            }
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.write_all(b"BEGIN\r\n")?;
        let mut bus = Bus { stream, serial: 0 };
        let name = "org.freedesktop.DBus";
        let hello =
            Method { destination: name, path: "/org/freedesktop/DBus", interface: name, member: "Hello" };
        bus.call(hello, &[])?;
        Ok(bus)
    }

    /// Calls a method with texts. The answer is empty if it is no text.
    pub(super) fn call(&mut self, method: Method<'_>, arguments: &[&str]) -> io::Result<String> {
        self.serial += 1;
        self.stream.write_all(&message(self.serial, method, arguments))?;
        for _ in 0..PASSED_OVER {
            let answer = self.read()?;
            if answer.to != Some(self.serial) {
                continue;
            }
            match answer.kind {
                RETURN => return Ok(answer.text),
                ERROR => return Err(io::Error::other(answer.text)),
                _ => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn read(&mut self) -> io::Result<Answer> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let mut reader = Reader { bytes: &head, at: 0, big: head[0] == b'B' };
        reader.at = 4;
        let body = reader.number().ok_or_else(malformed)? as usize;
        reader.at = 12;
        let fields = reader.number().ok_or_else(malformed)? as usize;
        if body > LONGEST || fields > LONGEST {
            return Err(malformed());
        }
        let (big, mut bytes) = (reader.big, head.to_vec());
        bytes.resize((16 + fields).next_multiple_of(8) + body, 0);
        self.stream.read_exact(bytes.get_mut(16..).unwrap_or_default())?;
        Answer::parse(Reader { bytes: &bytes, at: 16, big }, fields).ok_or_else(malformed)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed message on the bus")
}

/// Where the bus is: the first path of an address list, or the usual one.
fn socket(addresses: Option<&str>) -> PathBuf {
    let all = addresses.unwrap_or_default().split(';');
    let path = all
        .filter_map(|one| one.strip_prefix("unix:"))
        .flat_map(|one| one.split(','))
        .find_map(|pair| pair.strip_prefix("path="));
    path.unwrap_or(SOCKET).into()
}

fn message(serial: u32, method: Method<'_>, arguments: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|text| push_text(&mut body, text));
    let mut fields = Vec::new();
    let signature = "s".repeat(arguments.len());
    for (field, kind, value) in [
        (PATH, b'o', method.path),
        (DESTINATION, b's', method.destination),
        (INTERFACE, b's', method.interface),
        (MEMBER, b's', method.member),
    ] {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([field, 1, kind, 0]);
        push_text(&mut fields, value);
    }
    fields.resize(fields.len().next_multiple_of(8), 0);
    fields.extend([SIGNATURE, 1, b'g', 0, signature.len() as u8]);
    fields.extend(signature.bytes().chain([0]));
    let mut all = vec![b'l', CALL, 0, 1];
    for number in [body.len() as u32, serial, fields.len() as u32] {
        all.extend(number.to_le_bytes());
    }
    all.extend(fields);
    all.resize(all.len().next_multiple_of(8), 0);
    all.extend(body);
    all
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes().chain([0]));
}

/// A message that came.
#[derive(Debug)]
struct Answer {
    kind: u8,
    /// The serial number of the call that it answers.
    to: Option<u32>,
    /// Its first value, if that is a text.
    text: String,
}

impl Answer {
    /// Reads header fields of this length and what follows.
    fn parse(mut reader: Reader<'_>, fields: usize) -> Option<Answer> {
        let kind = *reader.bytes.get(1)?;
        let end = reader.at.checked_add(fields)?;
        let (mut to, mut signature) = (None, String::new());
        while reader.at < end {
            reader.at = reader.at.next_multiple_of(8);
            let field = reader.byte()?;
            match reader.short_text()?.as_str() {
                "s" | "o" => drop(reader.text()?),
                "g" if field == SIGNATURE => signature = reader.short_text()?,
                "g" => drop(reader.short_text()?),
                "u" if field == REPLY_SERIAL => to = Some(reader.number()?),
                "u" => drop(reader.number()?),
                _ => return None,
            }
        }
        reader.at = end.next_multiple_of(8);
        let text = if signature.starts_with('s') { reader.text()? } else { String::new() };
        Some(Answer { kind, to, text })
    }
}

/// Reads values where they are aligned to.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn number(&mut self) -> Option<u32> {
        let start = self.at.next_multiple_of(4);
        let bytes: [u8; 4] = self.bytes.get(start..start + 4)?.try_into().ok()?;
        self.at = start + 4;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.take(length)
    }

    /// A signature, whose length is one byte.
    fn short_text(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Option<String> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        // The byte that ends it.
        self.at += length + 1;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bus_is_where_its_address_says() {
        for (address, path) in [
            (None, SOCKET),
            (Some("unix:path=/a"), "/a"),
            (Some("tcp:host=x;unix:guid=1,path=/b;unix:path=/c"), "/b"),
            (Some("unix:abstract=/d"), SOCKET),
        ] {
            assert_eq!(socket(address), PathBuf::from(path), "{address:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let method = Method { destination: "a.b", path: "/c", interface: "d.e", member: "F" };
        let bytes = message(7, method, &["first", "second"]);
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let answer = Answer::parse(Reader { bytes: &bytes, at: 16, big: false }, fields).unwrap();
        assert_eq!((answer.kind, answer.to, answer.text.as_str()), (CALL, None, "first"));
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            fields in 0..90usize,
            big: bool,
        ) {
            Answer::parse(Reader { bytes: &bytes, at: 16, big }, fields);
        }
    }
}
