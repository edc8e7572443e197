//! What a password says: options, as rented hash power and proxies send them.

use crate::difficulty::Difficulty;

/// The difficulty that the options of a password wish for: `d=N` or `diff=N` in any case, set apart by commas, semicolons
/// or blanks. The first one that is a difficulty counts.
#[must_use]
pub fn difficulty_in(password: &str) -> Option<Difficulty> {
    let is_between = |char: char| matches!(char, ',' | ';') || char.is_whitespace();
    let mut options = password.split(is_between).filter(|option| !option.is_empty()).peekable();
    while let Some(option) = options.next() {
        let Some((name, value)) = option.split_once('=') else { continue };
        if !["d", "diff"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        // Blanks may stand before the number.
        let number = if value.is_empty() { options.peek().copied().unwrap_or_default() } else { value };
        if let Some(difficulty) = number.parse().ok().and_then(Difficulty::new) {
            return Some(difficulty);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difficulty_is_found_among_options_in_any_case_and_apart_by_any_mark() {
        for password in [
            "d=512",
            "D=512",
            "x,d=512",
            "x;d=512",
            "d=512;x",
            "x d=512 y",
            " d= 512",
            "x, Diff=512",
            "d=,d=512",
        ] {
            assert_eq!(difficulty_in(password), Difficulty::new(512.0), "{password}");
        }
    }

    #[test]
    fn what_is_no_difficulty_is_no_wish() {
        for password in ["", "x", "123", "d", "d=", "d=x", "d=0", "d=-1", "d=nan", "id=5", "x=d=5", "d,=5"] {
            assert_eq!(difficulty_in(password), None, "{password}");
        }
    }
}
