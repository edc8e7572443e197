//! Text and numbers for people.
//!
//! Here: sanitizing external text for a terminal ([`clean`]), durations, magnitudes. Not here: what is measured.

use unicode_width::UnicodeWidthChar;

/// Longest external text that is shown, in characters.
const MAX_TEXT: usize = 300;

/// Makes a text safe to draw: each character is one cell wide and has no other effect. Line breaks and tabs become
/// spaces; zero-width characters are removed, such as combining and direction marks. Of the rest, Latin, Greek and
/// Cyrillic letters, punctuation and symbols are kept, and everything else becomes `?`: control characters, wide
/// characters, right-to-left scripts, scripts that join letters. Cut at [`MAX_TEXT`].
pub(super) fn clean(text: &str) -> String {
    text.chars().filter_map(cell).take(MAX_TEXT).collect()
}

fn cell(character: char) -> Option<char> {
    match (character, character.width()) {
        ('\n' | '\r' | '\t', _) => Some(' '),
        // The soft hyphen; terminals disagree about its width.
        (_, Some(0)) | ('\u{ad}', _) => None,
        (' '..='~' | '\u{a0}'..='\u{2ff}' | '\u{370}'..='\u{52f}' | '\u{1e00}'..='\u{1fff}', Some(1)) => {
            Some(character)
        }
        // Punctuation and symbols, without direction marks, line ends and joiners.
        ('\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{2070}'..='\u{27bf}', Some(1)) => {
            Some(character)
        }
        _ => Some('?'),
    }
}

/// Seconds in the two most significant units: `17 s`, `12 min 3 s`, `5 h 12 min`, `3 d 4 h`, `3.20 years`.
pub(super) fn duration(seconds: f64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: f64 = 365.25 * DAY as f64;
    if seconds >= YEAR {
        return format!("{} years", size(seconds / YEAR));
    }
    let seconds = seconds as u64;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min {} s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// A nonnegative number in at most seven characters: `0.00012`, `0.0912`, `12.3`, `164`, `1.23M`, `4.5e21`.
pub(super) fn size(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        ..0.000_1 => format!("{number:.1e}"),
        ..0.01 => format!("{number:.5}"),
        ..1.0 => format!("{number:.4}"),
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        ..100_000.0 => format!("{number:.0}"),
        ..1e9 => format!("{:.2}M", number / 1e6),
        ..1e12 => format!("{:.2}G", number / 1e9),
        ..1e15 => format!("{:.2}T", number / 1e12),
        _ => format!("{number:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn a_strangers_text_cannot_move_anything() {
        for (hostile, harmless) in [
            ("pool says hello: ÄΩя", "pool says hello: ÄΩя"),
            ("\x1b[2J\x1b]0;owned\x07", "?[2J?]0;owned?"),
            ("\u{9b}31m", "?31m"),
            ("two\r\nlines\tand a tab", "two  lines and a tab"),
            ("z\u{300}\u{301}\u{302}a\u{200d}\u{fe0f}lgo", "zalgo"),
            ("\u{202e}desrever\u{2066}", "desrever"),
            ("line\u{2028}end", "line?end"),
            ("שלום مرحبا", "???? ?????"),
            ("矿池 🚀", "?? ?"),
            ("k\u{915}\u{93f}\u{1133f}", "k???"),
        ] {
            assert_eq!(clean(hostile), harmless);
        }
        assert_eq!(clean(&"x".repeat(10_000)).len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn whatever_comes_takes_one_cell_for_each_character(text in any::<String>()) {
            let clean = clean(&text);
            prop_assert!(!clean.chars().any(char::is_control));
            prop_assert_eq!(UnicodeWidthStr::width(&*clean), clean.chars().count());
        }

        #[test]
        fn a_number_of_any_size_is_short(number in 0.0..f64::MAX) {
            prop_assert!(size(number).len() <= 7, "{}", size(number));
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (59.0, "59 s"),
            (723.0, "12 min 3 s"),
            (18_720.0, "5 h 12 min"),
            (273_600.0, "3 d 4 h"),
            (100_984_320.0, "3.20 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(1e300), "3.2e292 years");
    }

    #[test]
    fn sizes_keep_what_matters() {
        let sizes = [0.0, 0.000_012, 0.001_2, 0.0912, 1.0, 12.34, 164.0, 1_234_567.0, 4.5e21].map(size);
        assert_eq!(sizes, ["0", "1.2e-5", "0.00120", "0.0912", "1.00", "12.3", "164", "1.23M", "4.5e21"]);
    }
}
