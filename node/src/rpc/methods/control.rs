//! Methods about the node itself.

use serde_json::{Value, json};

use super::super::args::Args;
use super::super::error::RpcError;
use super::super::method::Category;
use super::{Context, METHODS, find};

pub(super) async fn help(_: &Context, args: &Args) -> Result<Value, RpcError> {
    Ok(json!(match args.optional_text(0)?.filter(|name| !name.is_empty()) {
        Some(name) =>
            find(name).map_or_else(|| format!("help: unknown command: {name}"), super::Method::usage),
        None => overview(),
    }))
}

/// All methods except hidden ones, one per line, listed as in the reference.
fn overview() -> String {
    let sections: Vec<String> = Category::LISTED
        .iter()
        .map(|category| {
            let methods = METHODS.iter().filter(|method| method.category == *category);
            let lines: String = methods.map(|method| method.signature() + "\n").collect();
            format!("== {category:?} ==\n{lines}")
        })
        .collect();
    sections.join("\n").trim_end().to_owned()
}

pub(super) async fn stop(context: &Context, _: &Args) -> Result<Value, RpcError> {
    context.shutdown.send_replace(true);
    Ok(json!("IoP server stopping"))
}

pub(super) async fn uptime(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(context.started.elapsed().as_secs()))
}
