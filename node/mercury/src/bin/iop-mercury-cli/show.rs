//! Prints results, as text or JSON. Strangers' texts are sanitized before they reach a terminal.

use std::io::{self, Write};

use iop_mercury::body::{BlobRef, HomeAddress, Profile};
use iop_mercury::client::folder::{Contact, Standing};
use iop_mercury::client::{Wish, steers_terminals, version};
use iop_mercury::envelope::Verified;
use iop_mercury::id::Id;
use iop_mercury::wire::Presence;
use serde_json::{Value, json};

use crate::Failure;

/// The output format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    pub(crate) json: bool,
}

/// Makes a text one line without control characters or characters that change text direction.
pub(crate) fn tame(text: &str) -> String {
    let tamed = |one: char| match one {
        '\n' => ' ',
        one if steers_terminals(one) => '\u{fffd}',
        one => one,
    };
    text.chars().map(tamed).collect()
}

/// Like [`tame`], for several lines: all but the first begin with a bar, so that none looks like our own output.
pub(crate) fn tame_lines(text: &str) -> String {
    text.split('\n').map(tame).collect::<Vec<_>>().join("\n| ")
}

impl Show {
    /// Prints one line, or one JSON value.
    pub(crate) fn one(self, text: &str, value: &Value) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{value}")?
        } else {
            writeln!(out, "{text}")?
        }
        Ok(out.flush()?)
    }

    pub(crate) fn id(self, id: Id) -> Result<(), Failure> {
        self.one(&id.to_string(), &json!({ "id": id.to_string() }))
    }

    pub(crate) fn home(self, home: &HomeAddress) -> Result<(), Failure> {
        let text = format!("{} {}", home.home, home.addresses.join(" "));
        self.one(&text, &json!({ "home": home.home.to_string(), "addresses": home.addresses }))
    }

    pub(crate) fn profile(self, profile: &Verified<Profile>) -> Result<(), Failure> {
        let body = profile.body();
        let blob = |blob: &Option<BlobRef>| {
            blob.map_or(
                Value::Null,
                |blob| json!({ "sha256": hex::encode(&blob.hash[..]), "size": blob.size }),
            )
        };
        let attributes: serde_json::Map<_, _> =
            body.attributes.iter().map(|one| (one.name.clone(), json!(one.value))).collect();
        let value = json!({
            "id": profile.signer().to_string(),
            "version": version(profile),
            "withdrawn": body.tombstone,
            "attributes": attributes,
            "picture": blob(&body.picture),
            "thumbnail": blob(&body.thumbnail),
        });
        let mut lines = vec![format!("id: {}", profile.signer())];
        lines.extend(body.attributes.iter().map(|one| format!("{}: {}", tame(&one.name), tame(&one.value))));
        lines.extend(body.picture.map(|picture| format!("picture: {} bytes", picture.size)));
        lines.extend(body.tombstone.then(|| "withdrawn".to_owned()));
        self.one(&lines.join("\n"), &value)
    }

    pub(crate) fn wishes(self, wishes: &[Wish]) -> Result<(), Failure> {
        for wish in wishes {
            let body = wish.body();
            let text = format!("{} {} {}", wish.from, tame(&body.label), tame(&body.note));
            let value = json!({ "from": wish.from.to_string(), "label": body.label, "note": body.note,
                "home": body.home.home.to_string() });
            self.one(text.trim_end(), &value)?;
        }
        Ok(())
    }

    pub(crate) fn relations(self, contacts: &[Contact]) -> Result<(), Failure> {
        for contact in contacts {
            let standing = match contact.standing {
                Standing::Known => continue,
                Standing::Asked => "asked",
                Standing::Held => "held",
                Standing::Revoked => "revoked",
            };
            let home = contact.home.as_ref().map(|home| home.home.to_string());
            let value = json!({ "id": contact.id.to_string(), "standing": standing, "home": home });
            self.one(&format!("{} {standing}", contact.id), &value)?;
        }
        Ok(())
    }

    pub(crate) fn presence(self, there: &[Presence]) -> Result<(), Failure> {
        for one in there {
            let applications = one.applications.clone().unwrap_or_default();
            let text = format!("{} {}", one.persona, applications.join(" "));
            let value = json!({ "id": one.persona.to_string(), "applications": applications });
            self.one(text.trim_end(), &value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_makes_no_lines_of_its_own_and_turns_no_direction() {
        assert_eq!(tame("a\nb\u{1b}\u{202e}c\u{2066}d\u{200f}e"), "a b\u{fffd}\u{fffd}c\u{fffd}d\u{fffd}e");
        assert_eq!(tame_lines("hello\nBEN: forged\r\n"), "hello\n| BEN: forged\u{fffd}\n| ");
    }
}
