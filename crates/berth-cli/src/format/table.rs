//! Rows of text in columns.

/// Least width of a column but the last, its gap included, as Docker's tables have it.
const LEAST: usize = 10;
/// Least gap between two columns.
const GAP: usize = 3;

/// Aligns rows whose cells are separated by tabs.
pub fn align(rows: &[String]) -> String {
    align_to(rows, LEAST)
}

/// As [`align`], with columns that are at least so wide.
pub fn align_to(rows: &[String], least: usize) -> String {
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut widths = vec![0; columns];
    for row in &rows {
        // The last cell of a row needs no padding.
        for (width, cell) in widths.iter_mut().zip(row.iter().take(row.len().saturating_sub(1))) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < row.len() {
                let width = (widths[index] + GAP).max(least);
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let rows = ["ID\tNAME\tX", "0123456789ab\ta\tlong last cell"].map(str::to_owned);
        assert_eq!(align(&rows), "ID             NAME      X\n0123456789ab   a         long last cell\n");
        assert_eq!(align(&["only".to_owned()]), "only\n");
    }
}
