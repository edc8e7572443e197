//! Writes JSON as the reference does (UniValue): amounts with eight decimals, other fractions with up to sixteen
//! digits.
//!
//! Lives here: the writer of every answer. Does not live here: the content. Methods return plain numbers; whether a
//! number is an amount is decided by its field's name, and all fields that hold coins are listed here.

use std::io;

use serde_json::Value;
use serde_json::ser::Formatter;

/// Fields whose fractions are amounts in coins (`ValueFromAmount`).
const AMOUNT_FIELDS: [&str; 11] = [
    "value",
    "amount",
    "total_amount",
    "fee",
    "base",
    "modifiedfee",
    "mempoolminfee",
    "minrelaytxfee",
    "relayfee",
    "incrementalfee",
    "paytxfee",
];

/// Maximum number of digits of the reference's fractions.
const DIGITS: usize = 16;

/// Formats a value as the reference does.
pub(super) fn to_text(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Reference::default());
    serde::Serialize::serialize(value, &mut serializer).expect("a value that is in memory can be written");
    String::from_utf8(bytes).expect("JSON is written as UTF-8")
}

/// A formatter that remembers the name of the field being written.
#[derive(Default)]
struct Reference {
    in_key: bool,
    in_amount: bool,
}

impl Formatter for Reference {
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.in_key = true;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.in_key = false;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if self.in_key {
            self.in_amount = AMOUNT_FIELDS.contains(&fragment);
        }
        writer.write_all(fragment.as_bytes())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // All possible amounts are below 2^53 base units, so eight decimals are exact.
        let text = if self.in_amount { format!("{value:.8}") } else { fraction(value) };
        writer.write_all(text.as_bytes())
    }
}

/// C's `%.16g`: sixteen digits without trailing zeros, with an exponent where that is shorter.
fn fraction(value: f64) -> String {
    let scientific = format!("{value:.*e}", DIGITS - 1);
    let (digits, exponent) = scientific.split_once('e').expect("this format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small number");
    if (-4..DIGITS as i32).contains(&exponent) {
        let decimals = usize::try_from(DIGITS as i32 - 1 - exponent).expect("the range above");
        return without_zeros(&format!("{value:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_zeros(digits), exponent.abs())
}

fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fractions_are_those_of_the_reference() {
        for (value, text) in [
            (1.0, "1"),
            (0.0, "0"),
            (4.656542373906925e-10, "4.656542373906925e-10"),
            (0.000_123, "0.000123"),
            (0.1, "0.1"),
            (14_484.162_361_225_399, "14484.1623612254"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.234567890123457e+17"),
            (123_456_789.25, "123456789.25"),
            (-2.5, "-2.5"),
            (0.999_999_999_999_999_99, "1"),
        ] {
            assert_eq!(fraction(value), text, "{value}");
        }
    }

    #[test]
    fn amounts_have_eight_decimals_and_whole_numbers_none() {
        let value =
            json!({"value": 50.0, "n": 0, "difficulty": 1.0, "list": [{"fee": 0.000_1, "x": 0.5}], "fee": 5});
        assert_eq!(
            to_text(&value),
            r#"{"value":50.00000000,"n":0,"difficulty":1,"list":[{"fee":0.00010000,"x":0.5}],"fee":5}"#
        );
        assert_eq!(
            to_text(&json!({"total_amount": 20_999_999.999_999_99})),
            r#"{"total_amount":20999999.99999999}"#
        );
    }
}
