//! The supported commands of the cgminer API, and their answers.
//!
//! Codes and messages are those that cgminer's clients know. The contents of the records: [`super::records`].

use tracing::debug;

use super::records;
use super::reply::{Answer, Record, Reply, Section};
use super::request::{Asked, Malformed};
use crate::view::Watched;
use crate::view::numbers::Numbers;

/// A command.
struct Command {
    name: &'static str,
    /// Whether it changes something, or asks whether the client may.
    privileged: bool,
    /// Whether it may be joined with others.
    joinable: bool,
    answer: fn(&Query<'_>) -> Reply,
}

/// Inputs of an answer.
struct Query<'a> {
    numbers: &'a Numbers,
    watched: &'a Watched,
    parameter: Option<&'a str>,
    privileged: bool,
    now: u64,
}

const fn report(name: &'static str, answer: fn(&Query<'_>) -> Reply) -> Command {
    Command { name, privileged: false, joinable: true, answer }
}

const COMMANDS: [Command; 15] = [
    report("version", version),
    report("config", config),
    report("summary", summary),
    report("devs", devs),
    report("edevs", devs),
    report("pools", pools),
    report("devdetails", devdetails),
    report("stats", stats),
    report("coin", coin),
    report("asccount", asccount),
    report("pgacount", pgacount),
    Command { name: "asc", privileged: false, joinable: false, answer: asc },
    Command { name: "check", privileged: false, joinable: false, answer: check },
    Command { name: "switchpool", privileged: true, joinable: false, answer: switchpool },
    Command { name: "privileged", privileged: true, joinable: false, answer: privileged },
];

/// Answers a request; a client that is not privileged may change nothing. `now` is in seconds since 1970.
pub(super) fn answer(
    asked: &Result<Asked, Malformed>,
    watched: &Watched,
    privileged: bool,
    now: u64,
) -> Answer {
    let asked = match asked {
        Ok(asked) => asked,
        Err(Malformed::Json) => return Answer::Single(Reply::error(23, "Invalid JSON")),
        Err(Malformed::NoCommand) => return Answer::Single(Reply::error(24, "Missing JSON 'command'")),
        Err(Malformed::Command) => return Answer::Single(unknown()),
    };
    let numbers = &watched.numbers();
    let query = |parameter| Query { numbers, watched, parameter, privileged, now };
    match asked {
        Asked::One { command, parameter } => match find(command) {
            None => Answer::Single(unknown()),
            Some(known) if known.privileged && !privileged => Answer::Single(denied(known)),
            Some(known) => Answer::Single((known.answer)(&query(parameter.as_deref()))),
        },
        Asked::Joined(commands) => {
            let reply = |command: &String| match find(command) {
                None => unknown(),
                Some(known) if !known.joinable => denied(known),
                Some(known) => (known.answer)(&query(None)),
            };
            Answer::Joined(commands.iter().map(|command| (command.clone(), reply(command))).collect())
        }
    }
}

fn find(name: &str) -> Option<&'static Command> {
    const KNOWN: &[Command] = &COMMANDS;
    KNOWN.iter().find(|command| command.name == name)
}

fn unknown() -> Reply {
    Reply::error(14, "Invalid command")
}

fn denied(command: &Command) -> Reply {
    Reply::error(45, format!("Access denied to '{}' command", command.name))
}

fn version(_: &Query<'_>) -> Reply {
    Reply::success(22, "CGMiner versions", Section::One("VERSION", records::version()))
}

fn config(query: &Query<'_>) -> Reply {
    Reply::success(33, "CGMiner config", Section::One("CONFIG", records::config(query.numbers)))
}

fn summary(query: &Query<'_>) -> Reply {
    Reply::success(11, "Summary", Section::One("SUMMARY", records::summary(query.numbers, query.now)))
}

fn devs(query: &Query<'_>) -> Reply {
    let records = records::devices(query.numbers, query.now);
    if records.is_empty() {
        return no_devices();
    }
    Reply::success(9, format!("{} ASC(s)", records.len()), Section::Many("DEVS", records))
}

fn no_devices() -> Reply {
    Reply::error(10, "No ASCs")
}

fn asc(query: &Query<'_>) -> Reply {
    let count = records::listed(query.numbers).len();
    let Some(last) = count.checked_sub(1) else { return no_devices() };
    let Some(parameter) = query.parameter else { return Reply::error(15, "Missing device id parameter") };
    match number(parameter).filter(|number| *number <= last) {
        None => Reply::error(107, format!("Invalid ASC id {} - range is 0 - {last}", told(parameter))),
        Some(number) => {
            let record = records::device(number, query.numbers, query.now);
            Reply::success(106, format!("ASC{number}"), Section::Many("ASC", vec![record]))
        }
    }
}

fn asccount(query: &Query<'_>) -> Reply {
    let count = Record::default().integer("Count", records::listed(query.numbers).len());
    Reply::success(104, "ASC count", Section::One("ASCS", count))
}

fn pgacount(_: &Query<'_>) -> Reply {
    Reply::success(59, "PGA count", Section::One("PGAS", Record::default().integer("Count", 0)))
}

fn pools(query: &Query<'_>) -> Reply {
    let records = records::pools(query.numbers, query.now);
    if records.is_empty() {
        return no_pools();
    }
    Reply::success(7, format!("{} Pool(s)", records.len()), Section::Many("POOLS", records))
}

fn no_pools() -> Reply {
    Reply::error(8, "No pools")
}

fn devdetails(query: &Query<'_>) -> Reply {
    let records = records::details(query.numbers);
    if records.is_empty() {
        return no_devices();
    }
    Reply::success(69, "Device Details", Section::Many("DEVDETAILS", records))
}

fn stats(query: &Query<'_>) -> Reply {
    Reply::success(70, "CGMiner stats", Section::Many("STATS", records::stats(query.numbers)))
}

fn coin(query: &Query<'_>) -> Reply {
    Reply::success(78, "CGMiner coin", Section::One("COIN", records::coin(query.numbers)))
}

fn check(query: &Query<'_>) -> Reply {
    let Some(name) = query.parameter else { return Reply::error(71, "Missing check cmd") };
    let known = find(name);
    let yes_no = |yes| if yes { "Y" } else { "N" };
    let access = known.is_some_and(|command| query.privileged || !command.privileged);
    let record = Record::default().text("Exists", yes_no(known.is_some())).text("Access", yes_no(access));
    Reply::success(72, "Check command", Section::One("CHECK", record))
}

fn switchpool(query: &Query<'_>) -> Reply {
    let sources = &query.numbers.sources;
    let Some(last) = sources.len().checked_sub(1) else { return no_pools() };
    let Some(parameter) = query.parameter else { return Reply::error(25, "Missing pool id parameter") };
    match number(parameter).filter(|number| query.watched.board.ask_for(*number)) {
        None => Reply::error(26, format!("Invalid pool id {} - range is 0 - {last}", told(parameter))),
        Some(number) => {
            debug!("source {number} is asked for over the cgminer API");
            let url = sources.get(number).map_or("", |source| &*source.url);
            Reply::success(27, format!("Switching to pool {number}:'{url}'"), Section::Nothing)
        }
    }
}

/// Only privileged clients get here.
fn privileged(_: &Query<'_>) -> Reply {
    Reply::success(46, "Privileged access OK", Section::Nothing)
}

fn number(parameter: &str) -> Option<usize> {
    parameter.trim().parse().ok()
}

/// The part of a client's text that an error repeats.
fn told(parameter: &str) -> String {
    parameter.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stats::Stats;
    use crate::upstream::Board;
    use crate::wall::WallClock;

    fn ask(command: &str, parameter: Option<&str>, watched: &Watched, privileged: bool) -> Reply {
        let asked = Asked::One { command: command.to_owned(), parameter: parameter.map(str::to_owned) };
        match answer(&Ok(asked), watched, privileged, 0) {
            Answer::Single(reply) => reply,
            joined => panic!("{joined:?}"),
        }
    }

    #[test]
    fn who_comes_from_elsewhere_reads_and_changes_nothing() {
        let board = Arc::new(Board::new([("a".to_owned(), "user".to_owned())]));
        let watched =
            Watched { stats: Arc::new(Stats::new()), board: Arc::clone(&board), clock: WallClock::default() };
        for (command, message) in [
            ("switchpool", "Access denied to 'switchpool' command"),
            ("privileged", "Access denied to 'privileged' command"),
        ] {
            assert_eq!(ask(command, Some("0"), &watched, false), Reply::error(45, message));
            let checked = Record::default().text("Exists", "Y").text("Access", "N");
            let check = Reply::success(72, "Check command", Section::One("CHECK", checked));
            assert_eq!(ask("check", Some(command), &watched, false), check);
        }
        assert_eq!(*board.wishes().borrow(), None);
        assert_ne!(ask("summary", None, &watched, false), denied(&COMMANDS[2]));
        assert_eq!(ask("devs", None, &watched, false), Reply::error(10, "No ASCs"));
        ask("switchpool", Some("0"), &watched, true);
        assert_eq!(*board.wishes().borrow(), Some(0));
    }
}
