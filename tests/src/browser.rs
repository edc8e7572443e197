//! A real browser for tests of pages: headless Chromium, driven by chromedriver over WebDriver (W3C).
//!
//! One driver, one session, one profile in a temporary folder. Errors that a page logs to its console are read from the
//! browser's log.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::program::{free_port, wait_for};

/// Time for the driver to listen.
const START_TIME: Duration = Duration::from_secs(20);
/// Seconds for one command of WebDriver; the first starts the browser.
const COMMAND_SECONDS: u64 = 60;

/// A browser with one window. It ends when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    /// URL of the session, or of the driver until there is one.
    base: String,
    session: bool,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser.
    ///
    /// # Errors
    /// Chromium or its driver is missing or does not start: a line that says so.
    pub fn start() -> Result<Self, String> {
        let port = free_port();
        let profile = tempfile::tempdir().map_err(|error| format!("no folder for a profile: {error}"))?;
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("chromedriver cannot be started, scripts/setup --tests installs it: {error}")
            })?;
        let data = format!("--user-data-dir={}", profile.path().display());
        let base = format!("http://127.0.0.1:{port}");
        let mut browser = Self { driver, base, session: false, _profile: profile };
        wait_for(START_TIME, || browser.get("/status").ok().filter(|status| status["ready"] == true))
            .ok_or("chromedriver does not answer")?;
        // Chromium's own sandbox does not start as root, nor in most containers; the pages are ours.
        let args = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", &data];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args}, "goog:loggingPrefs": {"browser": "ALL"}}}});
        let made = browser.post("/session", &wanted).map_err(|error| {
            format!("chromium cannot be started, scripts/setup --tests installs it: {error}")
        })?;
        let id = made["sessionId"].as_str().ok_or("chromedriver names no session")?;
        browser.base = format!("{}/session/{id}", browser.base);
        browser.session = true;
        Ok(browser)
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// The browser's error text.
    pub fn open(&self, url: &str) -> Result<(), String> {
        self.post("/url", &json!({"url": url})).map(drop)
    }

    /// Makes the page see a screen of this size in CSS pixels; a window cannot be as narrow as a phone.
    ///
    /// # Errors
    /// The browser's error text.
    pub fn screen(&self, width: u32, height: u32) -> Result<(), String> {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": true});
        self.devtools("Emulation.setDeviceMetricsOverride", &params).map(drop)
    }

    /// Makes the page see a user who prefers a dark colour scheme.
    ///
    /// # Errors
    /// The browser's error text.
    pub fn dark(&self) -> Result<(), String> {
        let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features})).map(drop)
    }

    /// A screenshot of the window, as PNG.
    ///
    /// # Errors
    /// The browser's error text.
    pub fn picture(&self) -> Result<Vec<u8>, String> {
        let picture = self.devtools("Page.captureScreenshot", &json!({"format": "png"}))?;
        let data = picture["data"].as_str().ok_or("a picture without data")?;
        STANDARD.decode(data).map_err(|error| error.to_string())
    }

    fn devtools(&self, command: &str, params: &Value) -> Result<Value, String> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Runs a function body in the page and returns its result.
    ///
    /// # Errors
    /// The browser's error text, including exceptions of the script.
    pub fn eval(&self, body: &str) -> Result<Value, String> {
        self.post("/execute/sync", &json!({"script": body, "args": []}))
    }

    /// The page's console messages since the last call, including errors and refused resources.
    ///
    /// # Errors
    /// The browser's error text.
    pub fn console(&self) -> Result<Vec<String>, String> {
        let log = self.post("/se/log", &json!({"type": "browser"}))?;
        let line = |entry: &Value| format!("{}: {}", entry["level"], entry["message"]);
        Ok(log.as_array().into_iter().flatten().map(line).collect())
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        answer(minreq::get(format!("{}{path}", self.base)))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = minreq::post(format!("{}{path}", self.base));
        answer(request.with_header("content-type", "application/json").with_body(body.to_string()))
    }
}

/// The `value` of an answer.
fn answer(request: minreq::Request) -> Result<Value, String> {
    let response = request.with_timeout(COMMAND_SECONDS).send().map_err(|error| error.to_string())?;
    let mut body: Value = serde_json::from_slice(response.as_bytes()).map_err(|error| error.to_string())?;
    let value = body["value"].take();
    match value.get("error") {
        Some(error) => Err(format!("{error}: {}", value["message"])),
        None => Ok(value),
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.session {
            let _ = answer(minreq::delete(&self.base)); // ends Chromium; the driver is killed in any case
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
