//! From what is known to lines on the screen.

use berth_api::container::Summary;
use unicode_width::UnicodeWidthChar as _;

use super::board::{Board, Column, Mode, health, is_running};
use crate::format::human::{binary_size, size};
use crate::format::table;

/// Columns from which state and health have a column each.
const WIDE: usize = 92;
/// Columns from which images are shown.
const WIDER: usize = 120;

const BOLD: &str = "\x1b[1m";
const INVERSE: &str = "\x1b[7m";
const PLAIN: &str = "\x1b[0m";
const KEYS: &str = "q quit  enter look  / filter  ncmibtu sort  s stop  r restart  K kill  p pause";

/// All lines of a screen of this many rows and columns.
pub fn screen(board: &Board, rows: usize, columns: usize, colour: bool) -> Vec<String> {
    let pen = Pen { columns, colour };
    let mut lines = match &board.mode {
        Mode::Details(id) => details(board, id, rows, &pen),
        _ => containers(board, rows, &pen),
    };
    lines.truncate(rows.saturating_sub(1));
    lines.resize(rows.saturating_sub(1), String::new());
    lines.push(pen.styled(BOLD, &bottom(board)));
    lines
}

struct Pen {
    columns: usize,
    colour: bool,
}

impl Pen {
    /// A text that fills the line, in a style.
    fn styled(&self, style: &str, text: &str) -> String {
        format!("{style}{}{PLAIN}", fit(text, self.columns))
    }

    fn coloured(&self, code: &str, text: String) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[39m") } else { text }
    }
}

/// A text without control characters, cut or filled to so many columns of the terminal.
fn fit(text: &str, columns: usize) -> String {
    let mut out = String::with_capacity(columns);
    let mut used = 0;
    for letter in text.chars() {
        let Some(width) = letter.width() else { continue };
        if used + width > columns {
            break;
        }
        used += width;
        out.push(letter);
    }
    out.extend(std::iter::repeat_n(' ', columns - used));
    out
}

fn containers(board: &Board, rows: usize, pen: &Pen) -> Vec<String> {
    let shown = board.shown();
    let running = board.containers.iter().filter(|container| is_running(container)).count();
    let mut title = format!("berth monitor: {} containers, {running} running", board.containers.len());
    if !board.filter.is_empty() {
        title.push_str(&format!(", {} with {:?}", shown.len(), board.filter));
    }
    let room = rows.saturating_sub(3).max(1);
    let at = board.position();
    let first = at.saturating_sub(room - 1).max(at.min(shown.len().saturating_sub(room)).min(at));
    let first = if at < room { 0 } else { first };
    let mut lines = vec![pen.styled(BOLD, &title), pen.styled(INVERSE, &heading(board, pen))];
    for container in shown.iter().skip(first).take(room) {
        let line = row(board, container, pen);
        match board.selected.as_ref() == Some(&container.id) {
            true => lines.push(pen.styled(INVERSE, &line.concat())),
            false => {
                let [name, figures, state] = line;
                let state = pen.coloured(code(container), state);
                lines.push(format!("{name}{figures}{state}"));
            }
        }
    }
    lines
}

/// A colour for a container's state.
fn code(container: &Summary) -> &'static str {
    match (container.state.as_str(), health(container)) {
        (_, "unhealthy") | ("dead", _) => "31",
        (_, "starting") | ("paused" | "restarting" | "removing", _) => "33",
        ("running", _) => "32",
        _ => "90",
    }
}

/// Columns for the name, the image, and the state.
fn widths(columns: usize) -> (usize, usize, usize) {
    let state = if columns >= WIDE { 20 } else { 11 };
    let image = if columns >= WIDER { 24 } else { 0 };
    let name = columns.saturating_sub(FIGURES + image + state).clamp(8, 40);
    (name, image, state)
}

/// Columns that all figures take.
const FIGURES: usize = 52;

fn figures_line(cells: [&str; 5]) -> String {
    let [cpu, memory, network, block, processes] = cells;
    format!("{cpu:>8} {memory:>9} {network:>13} {block:>13} {processes:>4}  ")
}

fn heading(board: &Board, pen: &Pen) -> String {
    let mark = |column, text: &str| match board.column == column {
        true => format!("{text}{}", if board.reversed { "^" } else { "*" }),
        false => text.to_owned(),
    };
    let (name, image, _) = widths(pen.columns);
    let figures = figures_line([
        &mark(Column::Cpu, "CPU %"),
        &mark(Column::Memory, "MEMORY"),
        &mark(Column::Network, "NET RX/TX"),
        &mark(Column::Block, "BLOCK R/W"),
        &mark(Column::Processes, "PID"),
    ]);
    let mut text = fit(&mark(Column::Name, "NAME"), name);
    text.push_str(&fit("IMAGE", image));
    text.push_str(&figures);
    text.push_str(&mark(Column::Status, "STATUS"));
    if pen.columns >= WIDE {
        text = fit(&text, name + image + figures.len() + 11) + "HEALTH";
    }
    text
}

/// The parts of a row: name and image, figures, state.
fn row(board: &Board, container: &Summary, pen: &Pen) -> [String; 3] {
    let (name, image, _) = widths(pen.columns);
    let mut first = fit(Board::name(container), name.saturating_sub(1)) + " ";
    if image > 0 {
        first.push_str(&fit(&container.image, image - 1));
        first.push(' ');
    }
    let figures = match board.figures.get(&container.id) {
        None => figures_line(["--", "--", "--", "--", "--"]),
        Some(figures) => {
            let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let pair = |one, other| format!("{}/{}", size(signed(one)), size(signed(other)));
            figures_line([
                &format!("{:.2}%", figures.cpu),
                &binary_size(signed(figures.memory)),
                &pair(figures.received, figures.sent),
                &pair(figures.read, figures.written),
                &figures.processes.to_string(),
            ])
        }
    };
    let (state, health) = (container.state.as_str(), health(container));
    let state = match pen.columns >= WIDE {
        true => format!("{state:<11}{health}"),
        false if health.is_empty() => state.to_owned(),
        false => health.to_owned(),
    };
    let room = pen.columns.saturating_sub(name + image + figures.len());
    [first, figures, fit(&state, room)]
}

fn details(board: &Board, id: &str, rows: usize, pen: &Pen) -> Vec<String> {
    let Some(container) = board.find(id) else { return Vec::new() };
    let title = format!("{}  {}  {}", Board::name(container), container.image, container.status);
    let mut lines = vec![pen.styled(BOLD, &title), pen.styled(INVERSE, &heading(board, pen))];
    lines.push(row(board, container, pen).concat());
    let room = rows.saturating_sub(lines.len() + 3);
    let processes = table::align(&board.details.processes);
    // Half of the room for each, and what one does not need for the other.
    let (wanted, said) = (processes.lines().count(), board.details.log.len());
    let most = wanted.min((room / 2).max(room.saturating_sub(said)));
    lines.push(pen.styled(INVERSE, "PROCESSES"));
    lines.extend(processes.lines().take(most).map(|line| fit(line, pen.columns)));
    lines.push(pen.styled(INVERSE, "LOG"));
    let skipped = said.saturating_sub(room.saturating_sub(most));
    lines.extend(board.details.log.iter().skip(skipped).map(|line| fit(line, pen.columns)));
    lines
}

/// The last line: a question, what happened, or the keys.
fn bottom(board: &Board) -> String {
    match &board.mode {
        Mode::Filter => format!("filter: {}_", board.filter),
        Mode::Confirm(action, id) => {
            let name = board.find(id).map_or(id.as_str(), Board::name);
            format!("{} {name}? [y/N]", action.name())
        }
        _ if !board.notice.is_empty() => board.notice.clone(),
        Mode::Details(_) => "esc back  q quit".to_owned(),
        Mode::Table => KEYS.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::{Action, tests::board};
    use super::super::keys::Key;
    use super::*;

    /// What is seen, without styles.
    fn seen(board: &Board, rows: usize, columns: usize) -> Vec<String> {
        let mut lines = screen(board, rows, columns, false);
        for line in &mut lines {
            for style in [BOLD, INVERSE, PLAIN] {
                *line = line.replace(style, "");
            }
            assert!(!line.contains('\x1b'), "{line:?}");
        }
        lines
    }

    #[test]
    fn the_table_fits_the_screen() {
        let board = board();
        for (rows, columns) in [(24, 80), (24, 100), (50, 200), (4, 80), (2, 20), (1, 1), (0, 0)] {
            let lines = seen(&board, rows, columns);
            assert_eq!(lines.len(), rows.max(1), "{rows} {columns}");
            assert!(lines.iter().all(|line| line.chars().count() <= columns.max(80)), "{lines:#?}");
        }
        let lines = seen(&board, 24, 80);
        assert!(lines[0].starts_with("berth monitor: 3 containers, 2 running"), "{lines:#?}");
        assert_eq!(
            lines[1].trim_end(),
            "NAME               CPU %*    MEMORY     NET RX/TX     BLOCK R/W  PID  STATUS"
        );
        assert_eq!(
            lines[2].trim_end(),
            "web2               50.00%      8MiB         5B/0B         0B/0B    3  healthy"
        );
        assert_eq!(
            lines[4].trim_end(),
            "old                    --        --            --            --   --  exited"
        );
        assert!(lines[23].starts_with("q quit"), "{lines:#?}");
        let wide = seen(&board, 24, 130);
        assert!(
            wide[2].contains("image-of-web2") && wide[2].trim_end().ends_with("running    healthy"),
            "{wide:#?}"
        );
    }

    #[test]
    fn the_selected_row_stays_on_the_screen() {
        let mut board = board();
        let one = board.containers[2].clone();
        let many = (0..100).map(|number| Summary {
            id: format!("id{number}"),
            names: vec![format!("/c{number:03}")],
            ..one.clone()
        });
        board.list(many.collect());
        for _ in 0..60 {
            board.press(Key::Down);
        }
        let lines = screen(&board, 12, 80, false);
        let selected: Vec<_> =
            lines.iter().filter(|line| line.starts_with(INVERSE) && line.contains("c06")).collect();
        assert_eq!(selected.len(), 1, "{lines:#?}");
        assert!(selected[0].contains("c060"));
    }

    #[test]
    fn questions_filters_and_details_are_shown() {
        let mut board = board();
        board.mode = Mode::Confirm(Action::Stop, "id-web2".into());
        assert!(seen(&board, 24, 80)[23].starts_with("stop web2? [y/N]"));
        board.mode = Mode::Filter;
        board.filter = "we".into();
        assert!(seen(&board, 24, 80)[23].starts_with("filter: we_"));
        board.mode = Mode::Details("id-web2".into());
        board.details.processes = vec!["PID\tCMD".into(), "1\tsleep\x1b[31m".into()];
        board.details.log = (0..50).map(|line| format!("line {line}")).collect();
        let lines = seen(&board, 24, 80);
        assert!(lines[0].starts_with("web2  image-of-web2  Up 2 minutes"), "{lines:#?}");
        assert!(lines.iter().any(|line| line.trim_end() == "1         sleep[31m"), "{lines:#?}");
        assert!(lines[22].starts_with("line 49"), "{lines:#?}");
        board.notice = "no such thing".into();
        assert!(seen(&board, 24, 80)[23].starts_with("no such thing"));
    }

    #[test]
    fn colour_is_used_where_it_is_wanted() {
        let board = board();
        assert!(screen(&board, 24, 80, true).iter().any(|line| line.contains("\x1b[90mexited")));
        assert!(!screen(&board, 24, 80, false).iter().any(|line| line.contains("\x1b[90m")));
    }

    #[test]
    fn wide_letters_take_two_columns() {
        assert_eq!(fit("日本語", 5), "日本 ");
        assert_eq!(fit("a\tb\x07", 4), "ab  ");
    }
}
