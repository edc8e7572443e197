//! Tables that fit the width: less important columns are dropped first, then long cells are cut.

use ratatui::style::{Modifier, Style};
use ratatui::text::Line;

/// Space between two columns.
const GAP: usize = 2;

/// A column.
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Align to the right, for numbers.
    pub(super) right: bool,
    /// Among the columns that may be dropped, the one of the highest rank goes first; rank 0 is always kept.
    pub(super) rank: u8,
    /// The least width its cells may be cut to.
    pub(super) least: usize,
}

/// A row: one text per column, of characters that are one screen cell wide.
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) style: Style,
}

/// A title line and the rows, none longer than `width` cells.
pub(super) fn table(columns: &[Column], rows: &[Row], width: usize) -> Vec<Line<'static>> {
    let widths = fit(columns, rows, width);
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, column), width) in cells.zip(columns).zip(&widths) {
            let Some(width) = *width else { continue };
            if !line.is_empty() {
                line.push_str("  ");
            }
            let cell: String = cell.chars().take(width).collect();
            line.push_str(&if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
        }
        line.chars().take(width).collect::<String>()
    };
    let titles = line(&mut columns.iter().map(|column| column.title));
    let mut lines = vec![title(titles, width)];
    lines.extend(rows.iter().map(|row| {
        let cells = line(&mut row.cells.iter().map(String::as_str));
        Line::styled(cells, row.style)
    }));
    lines
}

/// The title line of a part of the screen.
pub(super) fn title(text: String, width: usize) -> Line<'static> {
    let text: String = text.chars().take(width).collect();
    Line::styled(format!("{text:<width$}"), Style::new().add_modifier(Modifier::REVERSED))
}

/// The width of each column that is kept.
fn fit(columns: &[Column], rows: &[Row], width: usize) -> Vec<Option<usize>> {
    let natural: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows.iter().map(|row| row.cells[i].chars().count());
            cells.max().unwrap_or(0).max(column.title.chars().count())
        })
        .collect();
    let least = |i: usize| natural[i].min(columns[i].least.max(columns[i].title.chars().count()));
    let mut stay: Vec<usize> = (0..columns.len()).collect();
    let needed = |stay: &[usize]| stay.iter().map(|i| least(*i) + GAP).sum::<usize>().saturating_sub(GAP);
    while needed(&stay) > width {
        let Some(last) = stay.iter().copied().max_by_key(|i| columns[*i].rank) else { break };
        if columns[last].rank == 0 {
            break;
        }
        stay.retain(|i| *i != last);
    }
    let mut left = width.saturating_sub(needed(&stay));
    let mut widths = vec![None; columns.len()];
    for i in stay {
        let more = (natural[i] - least(i)).min(left);
        left -= more;
        widths[i] = Some(least(i) + more);
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "Name", right: false, rank: 0, least: 6 },
        Column { title: "Rate", right: true, rank: 1, least: 11 },
        Column { title: "State", right: false, rank: 2, least: 5 },
    ];

    fn shown(width: usize) -> Vec<String> {
        let row = |name: &str, rate: &str, state: &str| Row {
            cells: [name, rate, state].map(str::to_owned).to_vec(),
            style: Style::new(),
        };
        let rows = [row("cpu", "39.00 MH/s", "works"), row("opencl:0.0", "1.00 GH/s", "failed: no fan")];
        table(&COLUMNS, &rows, width).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_are_cut_and_then_go_by_their_rank() {
        assert_eq!(
            shown(60),
            [
                "Name              Rate  State                               ",
                "cpu         39.00 MH/s  works         ",
                "opencl:0.0   1.00 GH/s  failed: no fan",
            ]
        );
        assert_eq!(shown(30)[2], "opencl:0.0   1.00 GH/s  failed");
        assert_eq!(shown(20)[2], "opencl:0   1.00 GH/s");
        assert_eq!(shown(8), ["Name    ", "cpu     ", "opencl:0"]);
        assert_eq!(shown(3), ["Nam", "cpu", "ope"]);
        assert_eq!(shown(0), ["", "", ""]);
    }
}
