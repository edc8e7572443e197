//! Questions on a terminal or over a pipe: a line out, a line in.

use std::io::{self, BufRead, Write};

/// Longest answer, in bytes: a long path.
const MAX_ANSWER: u64 = 4096;

/// A dialogue with the user.
pub(super) struct Talk<'a, I, O> {
    pub(super) input: &'a mut I,
    pub(super) out: &'a mut O,
}

impl<I: BufRead, O: Write> Talk<'_, I, O> {
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Asks until the answer is valid. An empty answer selects the default, if there is one; `check` returns the error
    /// in any other.
    ///
    /// # Errors
    /// The input ends or cannot be read, or the question cannot be written.
    pub(super) fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<T> {
        loop {
            match default {
                Some(default) if !default.is_empty() => write!(self.out, "{question} [{default}]: ")?,
                _ => write!(self.out, "{question}: ")?,
            }
            self.out.flush()?;
            let answer = match self.line()? {
                Some(answer) if answer.is_empty() => default.map(str::to_owned).ok_or("an answer is needed"),
                Some(answer) => Ok(answer),
                None => Err("this line is too long, or is no text"),
            };
            match answer.map_err(str::to_owned).and_then(|answer| check(&answer)) {
                Ok(right) => return Ok(right),
                Err(wrong) => self.say(&format!("  {wrong}"))?,
            }
        }
    }

    /// Asks a yes-or-no question.
    pub(super) fn confirm(&mut self, question: &str) -> io::Result<bool> {
        self.ask(question, Some("no"), |answer| match answer {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("expected yes or no".to_owned()),
        })
    }

    /// The next line, trimmed; `None` if it is too long or not valid text.
    fn line(&mut self) -> io::Result<Option<String>> {
        let (mut line, mut whole) = (Vec::new(), true);
        loop {
            let read = io::Read::take(&mut *self.input, MAX_ANSWER).read_until(b'\n', &mut line)?;
            if read == 0 && line.is_empty() {
                // The next output starts a new line, not after the question.
                self.say("")?;
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "setup: the input ended before all was answered; nothing is written",
                ));
            }
            if line.ends_with(b"\n") || read == 0 {
                let text = String::from_utf8(line).ok().filter(|_| whole);
                return Ok(text.map(|text| text.trim().to_owned()));
            }
            if line.len() as u64 >= MAX_ANSWER {
                // Skip the rest of the line.
                whole = false;
                line.clear();
                line.push(b' ');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn number(answer: &str) -> Result<u32, String> {
        answer.parse().map_err(|_| format!("{answer:?} is no number"))
    }

    fn ask(input: &[u8], default: Option<&str>) -> (io::Result<u32>, String) {
        let (mut input, mut out) = (input, Vec::new());
        let answer = Talk { input: &mut input, out: &mut out }.ask("How many", default, number);
        (answer, String::from_utf8(out).unwrap())
    }

    #[test]
    fn wrong_answers_are_explained_and_asked_again() {
        let (answer, said) = ask(b"many\n\n 7 \n", None);
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(said, "How many:   \"many\" is no number\nHow many:   an answer is needed\nHow many: ");
    }

    #[test]
    fn an_empty_answer_is_the_default() {
        let (answer, said) = ask(b"\n", Some("3"));
        assert_eq!((answer.unwrap(), &*said), (3, "How many [3]: "));
    }

    #[test]
    fn the_end_of_the_input_is_an_error_and_a_last_line_without_its_end_is_none() {
        assert_eq!(ask(b"5", None).0.unwrap(), 5);
        for ended in [&b""[..], b"x\n", b"x"] {
            assert_eq!(ask(ended, Some("3")).0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn endless_lines_and_bytes_that_are_no_text_are_wrong_answers() {
        let long = [&[b'1'; 100_000][..], b"\n\xff\xfe\n4\n"].concat();
        let (answer, said) = ask(&long, None);
        assert_eq!(answer.unwrap(), 4);
        assert_eq!(said.matches("too long, or is no text").count(), 2, "{said}");
    }
}
