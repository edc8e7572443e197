//! The configuration file that setup writes: the answers, with comments that explain them and further options.

use std::fmt::Write;

use toml::Value;

use super::answers::{Answers, Node, Pool, Source};

/// The whole file. `measured` are lines about the measurements.
pub(super) fn text(answers: &Answers, measured: &[String]) -> String {
    let mut file = Text(String::new());
    file.comment("Written by iop-miner setup, for: iop-miner run --config THIS-FILE");
    file.comment(
        "Every key is a flag of the command: iop-miner mine --help (or solo, or gateway). A flag after the",
    );
    file.comment("file's name takes the place of its key: iop-miner run --config THIS-FILE --threads 2");
    let mode = match (&answers.source, answers.listen) {
        (_, Some(_)) => "gateway",
        (Source::Pool(_), None) => "pool",
        (Source::Node(_), None) => "solo",
    };
    file.section("pool, solo or gateway");
    file.text("mode", mode);
    if let Some(listen) = answers.listen {
        file.section("Where ASICs connect");
        file.text("listen", &listen.to_string());
    }
    match &answers.source {
        Source::Pool(source) => pool(&mut file, source),
        Source::Node(source) => node(&mut file, source, &answers.network),
    }
    hardware(&mut file, answers, measured);
    file.section("The HTTP API and the metrics for Prometheus");
    file.unused("api_bind = \"127.0.0.1:3381\"");
    file.0
}

fn pool(file: &mut Text, Pool { urls, tls_ca, user, password }: &Pool) {
    file.section("Pools, in order of preference");
    file.list("url", urls.iter().map(String::as_str));
    file.section("With stratum+ssl: a file (PEM) of CAs, or of pools' own certificates, to trust besides");
    match tls_ca {
        Some(path) => file.text("tls_ca", &path.display().to_string()),
        None => file.unused("tls_ca = \"FILE\""),
    }
    file.section("Follow a pool that asks to connect to another host; else only to another port");
    file.unused("follow_reconnect = true");
    file.section("An address, and a name for this machine");
    file.text("user", user);
    file.text("password", password);
    file.section("The difficulty to ask for; without it, the one that gives a share in about ten seconds");
    file.unused("suggest_difficulty = 1.0");
}

fn node(file: &mut Text, Node { url, cookie, license_key_files, payout }: &Node, network: &str) {
    file.section("The chain");
    file.text("network", network);
    file.section(
        "Nodes, in order of preference, and the cookie files of those without a password in their URL",
    );
    file.list("node", [&**url]);
    if let Some(cookie) = cookie {
        file.list("node_cookie", [&*cookie.display().to_string()]);
    }
    file.section("License keys; of several, the one with most room under the cap signs");
    let files: Vec<String> = license_key_files.iter().map(|path| path.display().to_string()).collect();
    file.list("license_key_file", files.iter().map(String::as_str));
    file.section("The address that blocks pay; without it, the license that signs");
    match payout {
        Some(address) => file.text("payout", address),
        None => file.unused("payout = \"ADDRESS\""),
    }
}

fn hardware(file: &mut Text, answers: &Answers, measured: &[String]) {
    file.section("What to mine with; iop-miner devices lists what there is");
    for line in measured {
        file.comment(&format!("Measured: {line}"));
    }
    let names: Vec<String> = answers.devices.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        file.comment("Nothing but what connects");
        file.text("devices", "none");
    } else {
        file.list("devices", names.iter().map(String::as_str));
    }
    file.section(
        "The CPU: cores to leave alone, threads (default: all the others), priority (19 gives way most)",
    );
    let _ = writeln!(file.0, "spare_cores = {}", answers.spare_cores);
    file.unused("threads = 4");
    file.unused("nice = 10");
    file.unused("no_pin = true");
    file.section("Pause the CPU at so many degrees Celsius, until it is 5 below");
    file.unused("max_temperature = 85");
}

/// TOML being built. Writing to a string cannot fail.
struct Text(String);

impl Text {
    fn comment(&mut self, text: &str) {
        // External text, such as a driver's, may contain line ends.
        let _ = writeln!(self.0, "# {}", text.replace(char::is_control, " "));
    }

    fn section(&mut self, text: &str) {
        self.0.push('\n');
        self.comment(text);
    }

    fn unused(&mut self, line: &str) {
        let _ = writeln!(self.0, "# {line}");
    }

    fn text(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key} = {}", Value::String(value.to_owned()));
    }

    fn list<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let values = values.into_iter().map(|value| Value::String(value.to_owned())).collect();
        let _ = writeln!(self.0, "{key} = {}", Value::Array(values));
    }
}
