//! The page for people: rendered here, without scripts or outside resources.

use std::fmt::Write;

use crate::api::{Api, Status};

/// Workers on the page.
const SHOWN_WORKERS: usize = 100;
/// Blocks on the page.
const SHOWN_BLOCKS: usize = 50;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}\
table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.2em .8em;text-align:left;\
border-bottom:1px solid #8884}td.n{text-align:right}code{font-size:.85em}:root{color-scheme:light dark}";

/// Text as it may stand in HTML.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A table whose cells are HTML already.
fn table(title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut html = format!("<h2>{title}</h2><table><tr>");
    head.iter().for_each(|name| html.push_str(&format!("<th>{name}</th>")));
    html.push_str("</tr>");
    for row in rows {
        html.push_str("<tr>");
        row.iter().for_each(|cell| html.push_str(&format!("<td>{cell}</td>")));
        html.push_str("</tr>");
    }
    html + "</table>"
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

fn number(number: Option<u64>, none: &str) -> String {
    number.map_or_else(|| none.to_owned(), |number| number.to_string())
}

fn summary(status: &Status) -> String {
    let rejected: u64 = status.shares.rejected.values().sum();
    let mut html = match (&status.job, &status.reason) {
        (Some(job), _) => format!(
            "<p>Mining block {} with license {}, {} transactions, difficulty {:.6}.</p>",
            job.height,
            code(&job.license),
            job.transactions,
            job.network_difficulty
        ),
        (None, reason) => {
            format!("<p><b>No work:</b> {}.</p>", escape(reason.as_deref().unwrap_or("unknown")))
        }
    };
    let _ = write!(
        html,
        "<p>{} connections; {} shares accepted, {rejected} refused; {} blocks found; up for {} s.</p>",
        status.connections, status.shares.accepted, status.blocks_found, status.uptime
    ); // writing to a String cannot fail
    html
}

/// The whole page.
pub(crate) fn render(api: &Api) -> String {
    let status = api.status();
    let nodes = status.nodes.iter().map(|node| {
        let state = if node.in_use { "in use" } else { node.trouble.as_deref().unwrap_or("waiting") };
        vec![code(&node.node), escape(state)]
    });
    let licenses = api.licenses();
    let licenses = licenses.iter().map(|license| {
        let info = &license.info;
        let may = match (info.eligible_next, info.eligible_from_height) {
            (true, _) => "yes".to_owned(),
            (false, Some(height)) => format!("from {height}"),
            (false, None) => "no".to_owned(),
        };
        let window = format!("{} / {}", info.blocks_in_window, number(info.cap, "no cap"));
        let mark = if license.in_use { "signs" } else { "" };
        vec![code(&info.address), window, number(info.last_block, "never"), may, mark.to_owned()]
    });
    let workers = api.workers().workers;
    let workers = workers.iter().take(SHOWN_WORKERS).map(|worker| {
        let refused: u64 = worker.shares.rejected.values().sum();
        let work = format!("{:.6}", worker.shares.work);
        vec![
            code(&worker.user),
            worker.connections.to_string(),
            worker.shares.accepted.to_string(),
            refused.to_string(),
            work,
        ]
    });
    let blocks = api.blocks();
    let blocks = blocks.iter().take(SHOWN_BLOCKS).map(|block| {
        vec![
            block.height.to_string(),
            code(&block.hash),
            code(&block.license),
            code(&block.worker),
            format!("{:?}", block.status).to_lowercase(),
        ]
    });
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"10\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>IoP pool</title><style>{STYLE}</style></head>\
         <body><h1>IoP pool on {}</h1>{}{}{}{}{}</body></html>",
        escape(&status.network),
        summary(&status),
        table("Licenses", &["License", "Window / cap", "Last block", "May mine next", ""], licenses),
        table("Blocks", &["Height", "Hash", "License", "Worker", "Status"], blocks),
        table("Workers", &["Worker", "Connections", "Accepted", "Refused", "Work"], workers),
        table("Nodes", &["Node", "State"], nodes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(escape("<a b=\"c\" d='e'>&"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
    }
}
