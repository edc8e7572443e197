//! Values that change registers all at once.

/// Moves from the first of each pair to the second: each register is in two of them, or in none. They form circles, and of
/// each circle one value waits in a spare register.
pub(crate) fn in_circles(
    instruction: &str,
    moves: impl IntoIterator<Item = (String, String)>,
    spare: &str,
) -> Vec<String> {
    let mut left: Vec<(String, String)> = moves.into_iter().filter(|(from, to)| from != to).collect();
    let mut lines = Vec::new();
    while let Some((_, first)) = left.first().cloned() {
        lines.push(format!("{instruction} {spare}, {first}"));
        let mut to = first.clone();
        loop {
            let at = left.iter().position(|(_, moved)| *moved == to).expect("a circle has no end");
            let (from, _) = left.swap_remove(at);
            if from == first {
                lines.push(format!("{instruction} {to}, {spare}"));
                break;
            }
            lines.push(format!("{instruction} {to}, {from}"));
            to = from;
        }
    }
    lines
}
