//! What is known of the containers, and what of it is looked at.

use std::cmp::Ordering;
use std::collections::HashMap;

use berth_api::container::Summary;

use super::keys::Key;
use crate::container::Figures;
use crate::format::natural;

/// Rows that a page key moves by.
const PAGE: usize = 10;
/// Longest filter.
const LONGEST: usize = 64;

/// What the table is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Name.
    Name,
    /// Share of CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Network traffic.
    Network,
    /// Block I/O.
    Block,
    /// Processes.
    Processes,
    /// State and health.
    Status,
}

/// What is done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stops it.
    Stop,
    /// Restarts it.
    Restart,
    /// Kills it.
    Kill,
    /// Pauses it.
    Pause,
    /// Lets it go on.
    Unpause,
}

impl Action {
    /// Its name, which is also the API's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
        }
    }
}

/// What the keys mean at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The table.
    Table,
    /// The filter is typed.
    Filter,
    /// A container, by its ID, is to be changed: yes or no.
    Confirm(Action, String),
    /// One container, by its ID.
    Details(String),
}

/// What a key asks of the rest of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// To end.
    Quit,
    /// To do something to a container, by its ID.
    Do(Action, String),
    /// To look closely at a container, by its ID.
    Look(String),
}

/// Processes and last words of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Rows of a table, its headings first, or why there are none.
    pub processes: Vec<String>,
    /// The last lines of its log.
    pub log: Vec<String>,
}

/// Everything that is shown.
#[derive(Debug)]
pub struct Board {
    /// All containers, as they were listed last.
    pub containers: Vec<Summary>,
    /// The last figures, by ID.
    pub figures: HashMap<String, Figures>,
    /// What the keys mean.
    pub mode: Mode,
    /// What the details show.
    pub details: Details,
    /// What names and images must contain.
    pub filter: String,
    /// What is sorted by.
    pub column: Column,
    /// The other way round.
    pub reversed: bool,
    /// The ID of the selected container.
    pub selected: Option<String>,
    /// What happened last, such as a failure.
    pub notice: String,
}

impl Board {
    /// One without containers.
    pub fn new() -> Self {
        Self {
            containers: Vec::new(),
            figures: HashMap::new(),
            mode: Mode::Table,
            details: Details::default(),
            filter: String::new(),
            column: Column::Cpu,
            reversed: false,
            selected: None,
            notice: String::new(),
        }
    }

    /// A container's name.
    pub fn name(container: &Summary) -> &str {
        container.names.first().map_or(container.id.as_str(), |name| name.trim_start_matches('/'))
    }

    /// The container with this ID.
    pub fn find(&self, id: &str) -> Option<&Summary> {
        self.containers.iter().find(|container| container.id == id)
    }

    /// Takes a new list.
    pub fn list(&mut self, containers: Vec<Summary>) {
        self.containers = containers;
        self.figures.retain(|id, _| {
            self.containers.iter().any(|container| container.id == *id && is_running(container))
        });
        let gone = |id: &String| !self.containers.iter().any(|container| container.id == *id);
        match &self.mode {
            Mode::Details(id) | Mode::Confirm(_, id) if gone(id) => self.mode = Mode::Table,
            _ => {}
        }
        self.select_something();
    }

    /// The containers that are shown, sorted.
    pub fn shown(&self) -> Vec<&Summary> {
        let wanted = self.filter.to_lowercase();
        let matches = |container: &&Summary| {
            wanted.is_empty()
                || Self::name(container).to_lowercase().contains(&wanted)
                || container.image.to_lowercase().contains(&wanted)
        };
        let mut shown: Vec<&Summary> = self.containers.iter().filter(matches).collect();
        shown.sort_by(|a, b| {
            let order = self.compare(a, b);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| natural::compare(Self::name(a), Self::name(b)))
        });
        shown
    }

    /// Largest figures first.
    fn compare(&self, a: &Summary, b: &Summary) -> Ordering {
        let of = |container: &Summary| self.figures.get(&container.id).copied();
        let by = |figure: fn(&Figures) -> u64| of(b).as_ref().map(figure).cmp(&of(a).as_ref().map(figure));
        match self.column {
            Column::Name => natural::compare(Self::name(a), Self::name(b)),
            Column::Cpu => {
                let share = |container| of(container).map_or(-1.0, |figures| figures.cpu);
                share(b).total_cmp(&share(a))
            }
            Column::Memory => by(|figures| figures.memory),
            Column::Network => by(|figures| figures.received + figures.sent),
            Column::Block => by(|figures| figures.read + figures.written),
            Column::Processes => by(|figures| figures.processes),
            Column::Status => {
                fn rank(container: &Summary) -> (bool, &str, &str) {
                    (!is_running(container), container.state.as_str(), health(container))
                }
                rank(a).cmp(&rank(b))
            }
        }
    }

    /// The place of the selected container among those shown.
    pub fn position(&self) -> usize {
        let shown = self.shown();
        let selected = self.selected.as_ref();
        shown.iter().position(|container| Some(&container.id) == selected).unwrap_or_default()
    }

    fn select_something(&mut self) {
        let shown = self.shown();
        let there = shown.iter().any(|container| Some(&container.id) == self.selected.as_ref());
        if !there {
            self.selected = shown.first().map(|container| container.id.clone());
        }
    }

    fn select(&mut self, position: usize) {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        self.selected = shown.get(position.min(last)).map(|container| container.id.clone());
    }

    /// Does what a key means.
    pub fn press(&mut self, key: Key) -> Option<Wish> {
        self.notice.clear();
        if key == Key::Interrupt {
            return Some(Wish::Quit);
        }
        match self.mode.clone() {
            Mode::Table => return self.in_table(key),
            Mode::Filter => self.in_filter(key),
            Mode::Confirm(action, id) => {
                self.mode = Mode::Table;
                if matches!(key, Key::Char('y' | 'Y')) {
                    return Some(Wish::Do(action, id));
                }
            }
            Mode::Details(_) => match key {
                Key::Char('q') => return Some(Wish::Quit),
                Key::Escape | Key::Enter | Key::Backspace => self.mode = Mode::Table,
                _ => {}
            },
        }
        None
    }

    fn in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.mode = Mode::Table,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(letter) if self.filter.len() < LONGEST => self.filter.push(letter),
            _ => {}
        }
        self.select_something();
    }

    fn in_table(&mut self, key: Key) -> Option<Wish> {
        let at = self.position();
        match key {
            Key::Char('q') => return Some(Wish::Quit),
            Key::Up | Key::Char('k') => self.select(at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(at + 1),
            Key::PageUp => self.select(at.saturating_sub(PAGE)),
            Key::PageDown => self.select(at + PAGE),
            Key::Home | Key::Char('g') => self.select(0),
            Key::End | Key::Char('G') => self.select(usize::MAX),
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Escape => {
                self.filter.clear();
                self.select_something();
            }
            Key::Char(letter @ ('n' | 'c' | 'm' | 'i' | 'b' | 't' | 'u')) => self.sort(letter),
            Key::Enter => {
                let id = self.selected.clone()?;
                self.details = Details::default();
                self.mode = Mode::Details(id.clone());
                return Some(Wish::Look(id));
            }
            Key::Char(letter @ ('s' | 'r' | 'K' | 'p')) => self.ask(letter),
            _ => {}
        }
        None
    }

    fn sort(&mut self, letter: char) {
        let column = match letter {
            'n' => Column::Name,
            'c' => Column::Cpu,
            'm' => Column::Memory,
            'i' => Column::Network,
            'b' => Column::Block,
            't' => Column::Processes,
            _ => Column::Status,
        };
        self.reversed = column == self.column && !self.reversed;
        self.column = column;
    }

    fn ask(&mut self, letter: char) {
        let Some(container) = self.selected.as_ref().and_then(|id| self.find(id)) else { return };
        let action = match letter {
            's' => Action::Stop,
            'r' => Action::Restart,
            'K' => Action::Kill,
            _ if container.state.as_str() == "paused" => Action::Unpause,
            _ => Action::Pause,
        };
        self.mode = Mode::Confirm(action, container.id.clone());
    }
}

/// Whether a container has figures.
pub fn is_running(container: &Summary) -> bool {
    matches!(container.state.as_str(), "running" | "paused")
}

/// A container's health; empty without a check.
pub fn health(container: &Summary) -> &str {
    let health = container.health.as_ref().map_or("", |health| health.status.as_str());
    if health == "none" { "" } else { health }
}

#[cfg(test)]
pub mod tests {
    use berth_api::container::{Status, SummaryHealth};

    use super::*;

    /// A board with three containers, of which two run.
    pub fn board() -> Board {
        let container = |name: &str, state, health: &str| Summary {
            id: format!("id-{name}"),
            names: vec![format!("/{name}")],
            image: format!("image-of-{name}"),
            state,
            status: "Up 2 minutes".into(),
            health: Some(SummaryHealth { status: health.into(), failing_streak: 0 }),
            ..Summary::default()
        };
        let mut board = Board::new();
        board.list(vec![
            container("web2", Status::Running, "healthy"),
            container("web10", Status::Paused, "none"),
            container("old", Status::Exited, ""),
        ]);
        let figures =
            Figures { cpu: 50.0, memory: 8 << 20, limit: 32 << 20, processes: 3, ..Figures::default() };
        board.figures.insert("id-web2".into(), Figures { received: 5, ..figures });
        board.selected = Some("id-web2".into());
        board.figures.insert("id-web10".into(), Figures { cpu: 1.0, memory: 9 << 20, ..figures });
        board
    }

    fn names(board: &Board) -> Vec<&str> {
        board.shown().iter().map(|container| Board::name(container)).collect()
    }

    fn typed(board: &mut Board, text: &str) {
        for letter in text.chars() {
            board.press(Key::Char(letter));
        }
    }

    #[test]
    fn keys_sort_and_reverse() {
        let mut board = board();
        assert_eq!(names(&board), ["web2", "web10", "old"]);
        typed(&mut board, "m");
        assert_eq!(names(&board), ["web10", "web2", "old"]);
        typed(&mut board, "n");
        assert_eq!(names(&board), ["old", "web2", "web10"]);
        typed(&mut board, "n");
        assert_eq!(names(&board), ["web10", "web2", "old"]);
        for letter in ["i", "b", "t", "u"] {
            typed(&mut board, letter);
            assert_eq!(board.shown().len(), 3);
        }
    }

    #[test]
    fn keys_select_filter_and_ask() {
        let mut board = board();
        assert_eq!(board.selected.as_deref(), Some("id-web2"));
        typed(&mut board, "jjjj");
        assert_eq!(board.selected.as_deref(), Some("id-old"));
        board.press(Key::Up);
        assert_eq!(board.selected.as_deref(), Some("id-web10"));
        typed(&mut board, "p");
        assert_eq!(board.mode, Mode::Confirm(Action::Unpause, "id-web10".into()));
        assert_eq!(board.press(Key::Char('n')), None);
        typed(&mut board, "K");
        assert_eq!(board.press(Key::Char('y')), Some(Wish::Do(Action::Kill, "id-web10".into())));
        typed(&mut board, "/OLDq");
        assert_eq!((names(&board).len(), board.selected.as_deref()), (0, None));
        assert_eq!(board.press(Key::Enter), None);
        assert_eq!(board.press(Key::Enter), None, "nothing is selected");
        typed(&mut board, "/");
        board.press(Key::Backspace);
        assert_eq!(names(&board), ["old"]);
        board.press(Key::Enter);
        assert_eq!(board.press(Key::Enter), Some(Wish::Look("id-old".into())));
        board.press(Key::Escape);
        assert_eq!(board.press(Key::Char('q')), Some(Wish::Quit));
        assert_eq!(board.press(Key::Interrupt), Some(Wish::Quit));
    }

    #[test]
    fn what_is_gone_is_no_longer_looked_at() {
        let mut board = board();
        board.press(Key::Enter);
        assert_eq!(board.mode, Mode::Details("id-web2".into()));
        let left = board.containers[1].clone();
        board.list(vec![left]);
        assert_eq!((&board.mode, board.selected.as_deref()), (&Mode::Table, Some("id-web10")));
        assert_eq!(board.figures.len(), 1);
    }
}
