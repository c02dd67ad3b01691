//! What is to become of permissions: octal digits, or changes as chmod(1) writes them.

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange(Vec<Clause>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clause {
    /// The bits that the users named can have.
    who: u32,
    act: Act,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// These bits for each of `rwx`, and the special ones; whether `X` is among them.
    Bits { all: u32, executable_too: bool },
    /// What a class of users has: how far to the left its bits stand.
    Copied(u32),
}

const ALL: u32 = 0o7777;

impl ModeChange {
    /// These permissions and no others.
    #[must_use]
    pub fn fixed(mode: u32) -> ModeChange {
        let what = What::Bits { all: mode & ALL, executable_too: false };
        ModeChange(vec![Clause { who: ALL, act: Act::Set, what }])
    }

    /// Reads `644`, `u=rwX,go=rX`, `+x`, `g=u`, ...; none if it is none of these.
    #[must_use]
    pub fn read(text: &str) -> Option<ModeChange> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= ALL)?;
            return Some(ModeChange::fixed(mode));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let start = part.find(['+', '-', '='])?;
            let (users, mut rest) = part.split_at(start);
            let who = users.chars().try_fold(0, |who, user| Some(who | class(user)?))?;
            let who = if users.is_empty() { ALL } else { who };
            while let Some(sign) = rest.chars().next() {
                let act = match sign {
                    '+' => Act::Add,
                    '-' => Act::Remove,
                    '=' => Act::Set,
                    _ => return None,
                };
                rest = &rest[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let (what, left) = rest.split_at(end);
                clauses.push(Clause { who, act, what: read_what(what)? });
                rest = left;
            }
        }
        Some(ModeChange(clauses))
    }

    /// What it makes of the permissions of a file or a directory.
    #[must_use]
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        self.0.iter().fold(mode & ALL, |mode, clause| {
            let bits = match clause.what {
                What::Bits { all, executable_too } => {
                    all | if executable_too && (directory || mode & 0o111 != 0) { 0o111 } else { 0 }
                }
                What::Copied(shift) => (mode >> shift & 0o7) * 0o111,
            } & clause.who;
            match clause.act {
                Act::Add => mode | bits,
                Act::Remove => mode & !bits,
                Act::Set => mode & !clause.who | bits,
            }
        })
    }
}

fn class(user: char) -> Option<u32> {
    Some(match user {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => 0o1007,
        'a' => ALL,
        _ => return None,
    })
}

fn read_what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Copied(6)),
        "g" => return Some(What::Copied(3)),
        "o" => return Some(What::Copied(0)),
        _ => {}
    }
    let (mut all, mut executable_too) = (0, false);
    for letter in text.chars() {
        match letter {
            'r' => all |= 0o444,
            'w' => all |= 0o222,
            'x' => all |= 0o111,
            'X' => executable_too = true,
            's' => all |= 0o6000,
            't' => all |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { all, executable_too })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_chmod() {
        for (text, before, directory, after) in [
            ("644", 0o777, false, 0o644),
            ("04755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o640, false, 0o660),
            ("o=", 0o777, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("u=rw+x-w", 0, false, 0o500),
            ("g-x,o+w", 0o755, false, 0o747),
        ] {
            assert_eq!(ModeChange::read(text).unwrap().apply(before, directory), after, "{text} {before:o}");
        }
        for text in ["", "8", "77777", "u", "z=r", "u=q", "u=rw,", "u=ug", "+ä"] {
            assert_eq!(ModeChange::read(text), None, "{text}");
        }
    }
}
