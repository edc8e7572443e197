//! The node itself.

use serde_json::{Value, json};

use super::super::args::Args;
use super::super::error::RpcError;
use super::{Context, METHODS};

pub(super) async fn help(_: &Context, args: &Args) -> Result<Value, RpcError> {
    let Some(name) = args.optional_text(0)? else {
        let lines: Vec<String> =
            METHODS.iter().map(|m| m.usage().lines().next().unwrap_or(m.name).to_owned()).collect();
        return Ok(json!(lines.join("\n")));
    };
    let known = METHODS.iter().find(|method| method.name == name);
    Ok(json!(known.map_or_else(|| format!("help: unknown command: {name}"), |method| method.usage())))
}

pub(super) async fn stop(context: &Context, _: &Args) -> Result<Value, RpcError> {
    context.shutdown.send_replace(true);
    Ok(json!("IoP node stopping"))
}

pub(super) async fn uptime(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(context.started.elapsed().as_secs()))
}
