//! Processes as `/proc` shows them, in the columns of `ps`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::Error;

/// Clock ticks per second in `/proc` (`USER_HZ`, the same on all architectures that Linux runs containers on).
const TICKS: u64 = 100;
const FULL: [Column; 8] = [
    Column::User("UID"),
    Column::Pid,
    Column::Parent,
    Column::Share("C"),
    Column::Began("STIME"),
    Column::Terminal("TTY"),
    Column::Time,
    Column::Command("CMD"),
];
const BRIEF: [Column; 4] = [Column::Pid, Column::Terminal("TTY"), Column::Time, Column::Command("CMD")];
const AUX: [Column; 11] = [
    Column::User("USER"),
    Column::Pid,
    Column::Share("%CPU"),
    Column::MemoryShare,
    Column::Virtual,
    Column::Resident,
    Column::Terminal("TTY"),
    Column::State,
    Column::Began("START"),
    Column::Time,
    Column::Command("COMMAND"),
];

/// A column of `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The user's name.
    User(&'static str),
    /// The user's number.
    UserId,
    /// The group's number.
    GroupId,
    /// The process ID, on the host.
    Pid,
    /// Its parent's.
    Parent,
    /// Percentage of a processor over its life.
    Share(&'static str),
    /// Percentage of the host's memory.
    MemoryShare,
    /// Kilobytes of address space.
    Virtual,
    /// Kilobytes in memory.
    Resident,
    /// Its terminal.
    Terminal(&'static str),
    /// Its state.
    State,
    /// When it began.
    Began(&'static str),
    /// Since when, as a duration.
    Elapsed,
    /// Processor time used.
    Time,
    /// Nice value.
    Nice,
    /// The program's name.
    Name,
    /// The whole command line.
    Command(&'static str),
}

impl Column {
    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Column::User(title)
            | Column::Share(title)
            | Column::Terminal(title)
            | Column::Began(title)
            | Column::Command(title) => title,
            Column::UserId => "UID",
            Column::GroupId => "GID",
            Column::Pid => "PID",
            Column::Parent => "PPID",
            Column::MemoryShare => "%MEM",
            Column::Virtual => "VSZ",
            Column::Resident => "RSS",
            Column::State => "STAT",
            Column::Elapsed => "ELAPSED",
            Column::Time => "TIME",
            Column::Nice => "NI",
            Column::Name => "COMMAND",
        }
    }

    fn named(name: &str) -> Option<Column> {
        Some(match name {
            "user" | "euser" | "uname" => Column::User("USER"),
            "uid" | "euid" => Column::UserId,
            "gid" | "egid" => Column::GroupId,
            "pid" => Column::Pid,
            "ppid" => Column::Parent,
            "c" => Column::Share("C"),
            "pcpu" | "%cpu" => Column::Share("%CPU"),
            "pmem" | "%mem" => Column::MemoryShare,
            "vsz" | "vsize" => Column::Virtual,
            "rss" | "rssize" => Column::Resident,
            "tty" | "tname" | "tt" => Column::Terminal("TT"),
            "stat" | "state" | "s" => Column::State,
            "stime" | "start" | "start_time" | "lstart" => Column::Began("STIME"),
            "etime" => Column::Elapsed,
            "time" | "cputime" => Column::Time,
            "ni" | "nice" => Column::Nice,
            "comm" | "ucmd" => Column::Name,
            "cmd" => Column::Command("CMD"),
            "args" | "command" => Column::Command("COMMAND"),
            _ => return None,
        })
    }
}

/// What arguments of `ps` ask for; empty for `-ef`.
pub fn listing(arguments: &str) -> Result<Listing, Error> {
    let (sorts, others): (Vec<&str>, Vec<&str>) =
        arguments.split_whitespace().partition(|word| word.starts_with("--sort="));
    let mut order = Vec::new();
    for key in sorts.iter().flat_map(|word| word["--sort=".len()..].split(',')) {
        let falling = key.starts_with('-');
        let name = key.trim_start_matches(['+', '-']);
        let column = Column::named(&name.to_ascii_lowercase());
        let unknown =
            || Error::InvalidParameter(format!("top: ps argument \"--sort={key}\" is not supported"));
        order.push((column.ok_or_else(unknown)?, falling));
    }
    Ok(Listing { columns: columns(&others.join(" "))?, order })
}

/// Columns, and by which the rows are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The columns.
    pub columns: Vec<Column>,
    /// Columns that need not be shown, the most important first, and whether the greatest comes first.
    order: Vec<(Column, bool)>,
}

impl Listing {
    /// Puts processes in order; as they are without `--sort`.
    pub fn sort(&self, processes: &mut [Process], host: &Host) {
        processes.sort_by(|a, b| {
            let compare = |(column, falling): &(Column, bool)| {
                let order = compare(&a.value(*column, host), &b.value(*column, host));
                if *falling { order.reverse() } else { order }
            };
            self.order.iter().map(compare).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
    }
}

/// Numbers by their value, what is none by its letters.
fn compare(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    }
}

/// The columns that arguments of `ps` ask for; empty for `-ef`.
fn columns(arguments: &str) -> Result<Vec<Column>, Error> {
    let unsupported =
        |what: &str| Error::InvalidParameter(format!("top: ps argument \"{what}\" is not supported"));
    let mut words = arguments.split_whitespace();
    let mut found = Vec::new();
    let mut listed = false;
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        let list = bare.split_once('o').filter(|(before, _)| before.chars().all(|c| "eaxA".contains(c)));
        let Some((_, list)) = list else {
            match bare.trim_end_matches('w') {
                "ef" | "fe" | "f" | "eF" => found.extend(FULL),
                "aux" | "axu" | "u" => found.extend(AUX),
                "e" | "A" | "a" | "x" | "ax" => found.extend(BRIEF),
                _ => return Err(unsupported(word)),
            }
            continue;
        };
        if !std::mem::replace(&mut listed, true) {
            found.clear();
        }
        // The list follows in the same word, or in the next one.
        let list = if list.is_empty() { words.next().unwrap_or_default() } else { list };
        for name in list.split(',').filter(|name| !name.is_empty()) {
            let (name, title) = name.split_once('=').unwrap_or((name, ""));
            let name = name.to_ascii_lowercase();
            // Another column under that title would be taken for the process ID.
            if title.starts_with("PID") && name != "pid" {
                return Err(Error::InvalidParameter(format!("specifying \"{name}={title}\" is not allowed")));
            }
            found.push(Column::named(&name).ok_or_else(|| unsupported(&name))?);
        }
    }
    if found.is_empty() {
        found = FULL.into();
    }
    if !found.contains(&Column::Pid) {
        return Err(Error::InvalidParameter("Couldn't find PID field in ps output".into()));
    }
    Ok(found)
}

/// What is the same for all processes of one listing.
pub struct Host {
    users: HashMap<u32, String>,
    boot: i64,
    now: i64,
    memory_kb: u64,
}

impl Host {
    /// Reads the host's figures. What cannot be read makes its columns less precise.
    pub fn read() -> Host {
        let number = |text: &str| text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
        let line = |path: &str, start: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().find(|line| line.starts_with(start)).and_then(number)
        };
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        Host {
            users: passwd.lines().rev().filter_map(user).collect(),
            boot: line("/proc/stat", "btime").and_then(|n: u64| i64::try_from(n).ok()).unwrap_or_default(),
            now: Timestamp::now().as_second(),
            memory_kb: line("/proc/meminfo", "MemTotal").unwrap_or(1).max(1),
        }
    }
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    uid: u32,
    gid: u32,
    parent: i32,
    state: char,
    terminal: u64,
    ticks: u64,
    nice: i64,
    /// Ticks after the boot.
    began: u64,
    virtual_kb: u64,
    resident_kb: u64,
    name: String,
    command: String,
}

impl Process {
    /// Reads a process; `None` if it has ended.
    pub fn read(pid: i32) -> Option<Process> {
        let folder = format!("/proc/{pid}");
        let owner = fs::metadata(&folder).ok()?;
        let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
        let line = fs::read(format!("{folder}/cmdline")).ok()?;
        let page_kb = rustix::param::page_size() as u64 / 1024;
        let mut process = Process::parse(&stat, &line, page_kb)?;
        (process.uid, process.gid) = (owner.uid(), owner.gid());
        Some(process)
    }

    /// Reads `stat` and `cmdline` (proc(5)).
    fn parse(stat: &str, line: &[u8], page_kb: u64) -> Option<Process> {
        // The name may hold anything, also parentheses and spaces.
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let words: Vec<String> = line
            .split(|b| *b == 0)
            .filter(|w| !w.is_empty())
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect();
        let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
        Some(Process {
            pid: pid.parse().ok()?,
            uid: 0,
            gid: 0,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse::<i64>().ok()?.try_into().unwrap_or_default(),
            ticks: number(11)? + number(12)?,
            nice: fields.get(16)?.parse().ok()?,
            began: number(19)?,
            virtual_kb: number(20)? / 1024,
            resident_kb: number(21)? * page_kb,
            name: name.to_owned(),
            command,
        })
    }

    /// The value of a column.
    pub fn value(&self, column: Column, host: &Host) -> String {
        let began = host.boot + i64::try_from(self.began / TICKS).unwrap_or_default();
        let age = u64::try_from(host.now - began).unwrap_or_default();
        match column {
            Column::User(_) => host.users.get(&self.uid).cloned().unwrap_or_else(|| self.uid.to_string()),
            Column::UserId => self.uid.to_string(),
            Column::GroupId => self.gid.to_string(),
            Column::Pid => self.pid.to_string(),
            Column::Parent => self.parent.to_string(),
            Column::Share("C") => (self.ticks / age.max(1)).min(99).to_string(),
            Column::Share(_) => tenths(self.ticks * 10 / age.max(1)),
            Column::MemoryShare => tenths(self.resident_kb * 1000 / host.memory_kb),
            Column::Virtual => self.virtual_kb.to_string(),
            Column::Resident => self.resident_kb.to_string(),
            Column::Terminal(_) => terminal(self.terminal),
            Column::State => self.state.to_string(),
            Column::Began(_) => moment(began, host.now),
            Column::Elapsed => clock(age),
            Column::Time => clock(self.ticks / TICKS),
            Column::Nice => self.nice.to_string(),
            Column::Name => self.name.clone(),
            Column::Command(_) => self.command.clone(),
        }
    }
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

/// The name of a terminal's device number (drivers/tty, devices.txt).
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        0 => "?".into(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".into(),
        _ => "?".into(),
    }
}

/// The time of today, or the day.
fn moment(second: i64, now: i64) -> String {
    let zoned = |second| Timestamp::from_second(second).unwrap_or_default().to_zoned(TimeZone::system());
    let (then, now) = (zoned(second), zoned(now));
    if then.date() == now.date() {
        then.strftime("%H:%M").to_string()
    } else {
        then.strftime("%b%d").to_string()
    }
}

fn clock(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(arguments: &str) -> Vec<&'static str> {
        columns(arguments).unwrap().into_iter().map(Column::title).collect()
    }

    #[test]
    fn arguments_choose_columns() {
        assert_eq!(titles(""), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(titles("-ef"), titles(""));
        assert_eq!(titles("aux")[..3], ["USER", "PID", "%CPU"]);
        assert_eq!(titles("-o pid,comm"), ["PID", "COMMAND"]);
        assert_eq!(titles("-eo pid,args"), ["PID", "COMMAND"]);
        assert_eq!(titles("-opid -o user"), ["PID", "USER"]);
        assert_eq!(titles("ax"), ["PID", "TTY", "TIME", "CMD"]);
        let error = columns("-o user").unwrap_err().to_string();
        assert_eq!(error, "Couldn't find PID field in ps output");
        assert!(columns("-o pid,colour").is_err());
        let error = columns("-o pid,user=PID").unwrap_err().to_string();
        assert_eq!(error, "specifying \"user=PID\" is not allowed");
    }

    #[test]
    fn rows_are_ordered() {
        let process = |pid, name: &str| Process {
            pid,
            uid: 0,
            gid: 0,
            parent: 1,
            state: 'S',
            terminal: 0,
            ticks: 0,
            nice: 0,
            began: 0,
            virtual_kb: 0,
            resident_kb: 0,
            name: name.into(),
            command: name.into(),
        };
        let host = Host { users: HashMap::new(), boot: 0, now: 0, memory_kb: 1 };
        for (arguments, expected) in [
            ("aux", [10, 9, 8]),
            ("aux --sort=pid", [8, 9, 10]),
            ("-ef --sort=-pid", [10, 9, 8]),
            ("auxww --sort=comm,pid", [9, 8, 10]),
        ] {
            let mut all = [process(10, "b"), process(9, "a"), process(8, "b")];
            listing(arguments).unwrap().sort(&mut all, &host);
            assert_eq!(all.map(|process| process.pid), expected, "{arguments}");
        }
        assert!(listing("--sort=colour").is_err());
    }

    #[test]
    fn any_name_of_a_program_is_read() {
        let stat = "7 (a) b (c)) S 1 7 7 34817 7 4194304 1 0 0 0 250 50 0 0 20 5 1 0 6000 8192000 300 0 0";
        let process = Process::parse(stat, b"/bin/x\0-y\0", 4).unwrap();
        assert_eq!((process.pid, process.parent, process.name.as_str()), (7, 1, "a) b (c)"));
        let host = Host {
            users: HashMap::from([(0, "root".into())]),
            boot: 1000,
            now: 1000 + 3660,
            memory_kb: 12_000,
        };
        let value = |column| process.value(column, &host);
        assert_eq!(value(Column::User("UID")), "root");
        assert_eq!(value(Column::Terminal("TTY")), "pts/1");
        assert_eq!(value(Column::Time), "00:00:03");
        assert_eq!(value(Column::Elapsed), "01:00:00");
        assert_eq!(value(Column::MemoryShare), "10.0");
        assert_eq!(value(Column::Command("CMD")), "/bin/x -y");
        assert_eq!(Process::parse(stat, b"", 4).unwrap().command, "[a) b (c)]");
        assert!(Process::parse("7 (a", b"", 4).is_none());
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let process = Process::read(pid).unwrap();
        let host = Host::read();
        assert_eq!(process.value(Column::Pid, &host), pid.to_string());
        assert!(!process.value(Column::Command("CMD"), &host).is_empty());
    }
}
