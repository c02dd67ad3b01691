//! Values of options, in Docker's notation.

use berth_api::container::Ulimit;

/// `NAME=VALUE`, taken apart.
pub type Pair<'a> = (&'a str, &'a str);

/// A size in bytes, with Docker's suffixes: `512`, `64k`, `20m`, `2g`, `1t`, a `b` or `ib` after them.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A switch, in the words that Go's flags take.
pub fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `NAME=VALUE` with a name that is not empty.
pub fn environment_like(text: &str) -> Option<Pair<'_>> {
    text.split_once('=').filter(|(name, _)| !name.is_empty())
}

/// `NAME=SOFT[:HARD]`; −1 is unlimited.
pub fn ulimit(text: &str) -> Option<Ulimit> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, values) = environment_like(text)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard): (i64, i64) = (soft.trim().parse().ok()?, hard.trim().parse().ok()?);
    let fits = hard == -1 || (soft != -1 && soft <= hard);
    let possible = soft >= -1 && hard >= -1 && fits && NAMES.contains(&name);
    possible.then(|| Ulimit { name: name.to_owned(), hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64k", 64 << 10),
            ("20M", 20 << 20),
            ("2GiB", 2 << 30),
            (" 1 t", 1 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1.5g", "1x", "99999999999999999999", "99999999t"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn limits_have_a_soft_and_a_hard_half() {
        let both = |text| ulimit(text).map(|limit| (limit.soft, limit.hard));
        assert_eq!(both("nofile=5"), Some((5, 5)));
        assert_eq!(both("nofile=5:6"), Some((5, 6)));
        assert_eq!(both("core=-1"), Some((-1, -1)));
        assert_eq!(both("core=5:-1"), Some((5, -1)));
        for text in ["", "nofile", "nofile=", "nofile=6:5", "colour=5", "core=-1:5", "=5", "nofile=-2"] {
            assert_eq!(both(text), None, "{text}");
        }
    }

    #[test]
    fn switches_are_gos() {
        assert_eq!(switch("T"), Some(true));
        assert_eq!(switch("FALSE"), Some(false));
        assert_eq!(switch("yes"), None);
    }
}
